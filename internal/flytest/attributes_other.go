//go:build unix && !linux

package flytest

import "syscall"

// childAttributes gives a machine its own process group.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
