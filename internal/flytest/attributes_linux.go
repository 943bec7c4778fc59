package flytest

import "syscall"

// childAttributes gives a machine its own process group, and ends it with the
// server's process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
