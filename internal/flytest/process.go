package flytest

import (
	"maps"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// outputGrace is for what a program left behind to let go of its output.
const outputGrace = time.Second

// process is the program of a machine.
type process struct {
	pid int
}

// parent starts the processes: they are told of the death of the thread that
// started them, so one thread that lives as long as the server starts all.
func (s *Server) parent() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case start := <-s.starts:
			start()
		case <-s.quit:
			return
		}
	}
}

// spawn starts the program of a machine that has just started.
func (s *Server) spawn(m *machine) {
	argv, env := s.cfg.Command(m.boot(s.cfg.App))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{}, env...)
	cmd.Stdout, cmd.Stderr = s.cfg.Output, s.cfg.Output
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = outputGrace
	result := make(chan error, 1)
	// The thread never takes the lock, so waiting for it with the lock held is safe.
	select {
	case s.starts <- func() { result <- cmd.Start() }:
	case <-s.quit:
		return
	}
	if err := <-result; err != nil {
		s.cfg.Log.Error("machine doesn't start", "machine", m.id, "error", err)
		s.exited(m, exit{ExitCode: 127, GuestExitCode: 127})
		return
	}
	m.process = &process{pid: cmd.Process.Pid}
	s.counts.Processes++
	s.counts.MostProcesses = max(s.counts.MostProcesses, s.counts.Processes)
	s.ended.Go(func() { s.reap(m, cmd) })
}

func (s *Server) reap(m *machine, cmd *exec.Cmd) {
	_ = cmd.Wait() // what there is to know is in its state
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	e := exit{ExitCode: cmd.ProcessState.ExitCode(), GuestExitCode: cmd.ProcessState.ExitCode()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e = exit{ExitCode: 128 + int(status.Signal()), GuestSignal: int(status.Signal())}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.process = nil
	s.counts.Processes--
	if !s.closed {
		s.exited(m, e)
	}
}

func (m *machine) kill() {
	if m.process != nil {
		_ = syscall.Kill(-m.process.pid, syscall.SIGKILL)
	}
}

func (p *process) signal(name string) {
	_ = syscall.Kill(p.pid, signals()[name])
}

func signals() map[string]syscall.Signal {
	return map[string]syscall.Signal{
		"SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT, "SIGKILL": syscall.SIGKILL,
		"SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2, "SIGTERM": syscall.SIGTERM,
	}
}

// boot is what a machine's program is started with.
func (m *machine) boot(app string) Boot {
	env := maps.Clone(m.config.Env)
	if env == nil {
		env = map[string]string{}
	}
	memory := defaultMemoryMB
	if m.config.Guest != nil {
		memory = m.config.Guest.MemoryMB
	}
	maps.Copy(env, map[string]string{
		"FLY_MACHINE_ID": m.id, "FLY_MACHINE_VERSION": m.instance, "FLY_REGION": m.region, "FLY_PRIVATE_IP": privateIP(m.id),
		"FLY_APP_NAME": app, "FLY_IMAGE_REF": m.config.Image, "FLY_VM_MEMORY_MB": strconv.Itoa(memory),
	})
	init := m.config.Init
	return Boot{
		ID: m.id, Name: m.name, Region: m.region, Image: m.config.Image,
		Exec: init.Exec, Entrypoint: init.Entrypoint, Cmd: init.Cmd, Env: env,
	}
}
