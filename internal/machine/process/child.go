package process

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// child is one machine over all its starts, guarded by Provider.mu.
type child struct {
	id      string
	env     []string
	created time.Time
	state   machine.State
	detail  string
	pid     int         // of the running process, 0 if there is none
	killer  *time.Timer // set while Stopping
}

func (c *child) instance() machine.Instance {
	return machine.Instance{ID: c.id, ProviderID: c.id, State: c.state, Detail: c.detail, Created: c.created}
}

// spawn starts the process of a machine and watches for its end. It has to be
// called on the thread of Run, with p.mu held.
func (p *Provider) spawn(c *child) error {
	// No context: a machine outlives the call that made it.
	cmd := exec.Command(p.cfg.Command[0], p.cfg.Command[1:]...) //nolint:noctx // see above
	cmd.Env = c.env
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would mean ours
	}
	cmd.Dir = p.cfg.Dir
	if p.cfg.Output != nil {
		cmd.Stdout, cmd.Stderr = p.cfg.Output, p.cfg.Output
	}
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start process: %w", err)
	}
	c.pid, c.state, c.detail = cmd.Process.Pid, machine.Running, ""
	p.cfg.Log.Info("machine process started", "machine_id", c.id, "pid", c.pid)
	p.reaped.Go(func() { p.reap(c, cmd) })
	return nil
}

// reap waits for the end of a process.
func (p *Provider) reap(c *child, cmd *exec.Cmd) {
	err := cmd.Wait()
	// What the worker started and left behind in its group goes with it.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)

	p.mu.Lock()
	asked := c.state == machine.Stopping
	c.pid, c.state = 0, machine.Stopped
	if err != nil && !asked {
		c.state, c.detail = machine.Failed, err.Error()
	}
	if c.killer != nil {
		c.killer.Stop()
		c.killer = nil
	}
	p.mu.Unlock()

	p.cfg.Log.Info("machine process ended", "machine_id", c.id, "pid", cmd.Process.Pid, "result", cmd.ProcessState.String())
	select {
	case p.changes <- struct{}{}:
	default: // one is waiting to be read already
	}
}

// stop sends SIGTERM, and SIGKILL after the timeout.
func (c *child) stop(timeout time.Duration) {
	if c.state != machine.Running {
		return
	}
	c.state = machine.Stopping
	pid := c.pid
	_ = syscall.Kill(pid, syscall.SIGTERM)
	c.killer = time.AfterFunc(timeout, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
}

// kill ends the process group at once.
func (c *child) kill() {
	if c.pid == 0 {
		return
	}
	c.state = machine.Stopping
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
}
