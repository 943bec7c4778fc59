package process

import "syscall"

// childAttributes gives a child its own process group, and SIGTERM when the
// thread that started it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
