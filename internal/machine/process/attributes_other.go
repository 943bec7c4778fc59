//go:build unix && !linux

package process

import "syscall"

// childAttributes gives a child its own process group. Only Linux can tie its
// life to ours; elsewhere a worker whose control plane was killed keeps
// looking for it until it is stopped by hand.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
