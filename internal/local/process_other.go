//go:build unix && !linux

package local

import "syscall"

// childAttributes gives the child its own process group. Only Linux can tie
// its life to ours; elsewhere a kill -9 of the parent leaves it running, and
// the lock on its data says so at the next start.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
