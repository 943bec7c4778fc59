package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	checkEvery       = 10 * time.Millisecond
	firstBackoff     = 100 * time.Millisecond
	maxBackoff       = 5 * time.Second
	steadyAfter      = 10 * time.Second // a child that lived so long starts over with the first backoff
	defaultStartTime = 30 * time.Second
	defaultStopTime  = 10 * time.Second
)

// ProcessConfig says how to start a child and how to tell that it serves.
type ProcessConfig struct {
	// Name is used in logs and errors.
	Name string
	// Command builds the command of one start, with [exec.CommandContext] and
	// the given context. Output, signals and process group are the Process's
	// business. An error is final: Run returns it.
	Command func(ctx context.Context) (*exec.Cmd, error)
	// Check returns nil once the child serves. It is asked every few
	// milliseconds after a start.
	Check func(ctx context.Context) error
	// LockFile, when set, is locked by the child for as long as it lives.
	LockFile string
	// StartAttempts is how often the first start is tried; 0 means once.
	// Restarts of a child that has served are not limited.
	StartAttempts int
	// StartTimeout bounds the time until Check succeeds (0: 30 s).
	// StopTimeout is the time between SIGTERM and SIGKILL (0: 10 s).
	StartTimeout time.Duration
	StopTimeout  time.Duration
	// NoRestart makes Run return an error when the child dies.
	NoRestart bool
	// Log receives the child's output at debug level, and its deaths.
	Log *slog.Logger
}

// Process is one supervised child process.
type Process struct {
	cfg       ProcessConfig
	ready     chan struct{}
	readyOnce sync.Once
	pid       atomic.Int64
}

// NewProcess starts nothing; Run does.
func NewProcess(cfg ProcessConfig) *Process {
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = defaultStartTime
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = defaultStopTime
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Process{cfg: cfg, ready: make(chan struct{})}
}

// Ready is closed when the child serves for the first time.
func (p *Process) Ready() <-chan struct{} {
	return p.ready
}

// PID is the child's process id, 0 while there is none.
func (p *Process) PID() int {
	return int(p.pid.Load())
}

// Run keeps the child running until ctx ends, then stops it: SIGTERM, and
// SIGKILL after the stop timeout. It returns nil if ctx ended it, and an error
// with the child's last output if the child never came to serve. Call it once.
func (p *Process) Run(ctx context.Context) error {
	// The kernel's parent-death signal fires when the thread that started the
	// child ends, so this thread has to live as long as the child may.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	backoff := firstBackoff
	for attempt := 1; ; attempt++ {
		startedAt := time.Now()
		err := p.runOnce(ctx)
		if ctx.Err() != nil {
			return nil // the end that was asked for
		}
		if p.isFinal(err, attempt) {
			return fmt.Errorf("%s: %w", p.cfg.Name, err)
		}
		if time.Since(startedAt) > steadyAfter {
			backoff = firstBackoff
		}
		p.cfg.Log.ErrorContext(ctx, "server died, starting it again",
			"server", p.cfg.Name, "error", err, "backoff", backoff)
		if !wait(ctx, backoff) {
			return nil
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// finalError ends the supervision: another start can't help.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func (p *Process) isFinal(err error, attempt int) bool {
	var final finalError
	switch {
	case errors.As(err, &final), p.cfg.NoRestart:
		return true
	case p.hasServed():
		return false
	default:
		return attempt >= max(1, p.cfg.StartAttempts)
	}
}

func (p *Process) hasServed() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// runOnce is one life of the child. It always returns an error: nothing but
// the end of ctx, which Run looks at first, is a good end.
func (p *Process) runOnce(ctx context.Context) error {
	childCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	output := &lineLog{ctx: ctx, log: p.cfg.Log, server: p.cfg.Name}
	child, err := p.start(childCtx, output)
	if err != nil {
		return finalError{err}
	}
	if err := p.awaitService(childCtx, child.exited); err != nil {
		stop(err)
		<-child.exited
		return output.explain(err)
	}
	select {
	case <-child.exited: // the check may have met another server
	default:
		p.readyOnce.Do(func() { close(p.ready) })
		p.cfg.Log.DebugContext(ctx, "server is ready", "server", p.cfg.Name, "pid", p.PID())
		<-child.exited
	}
	return output.explain(child.err)
}

// child is one started process.
type child struct {
	exited chan struct{}
	err    error // why it ended; set when exited is closed
}

// start starts the child.
func (p *Process) start(ctx context.Context, output *lineLog) (*child, error) {
	var inherit []*os.File
	if p.cfg.LockFile != "" {
		lock, err := lockFile(ctx, p.cfg.LockFile, p.cfg.Log)
		if err != nil {
			return nil, err
		}
		// The child inherits the lock, and with our handle closed it alone has it.
		defer lock.Close() //nolint:errcheck // nothing was written
		inherit = append(inherit, lock)
	}
	cmd, err := p.cfg.Command(ctx)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = inherit
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = p.cfg.StopTimeout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	p.pid.Store(int64(cmd.Process.Pid))
	started := &child{exited: make(chan struct{})}
	go func() {
		defer close(started.exited)
		started.err = cmd.Wait()
		p.pid.Store(0)
		// Whatever the child started goes with it; mostly there is nothing.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		output.flush()
		if started.err == nil {
			started.err = errors.New("exit status 0")
		}
	}()
	return started, nil
}

// awaitService asks until the child serves, has ended, or its time is over.
// The end of the child is no error here.
func (p *Process) awaitService(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		err := p.cfg.Check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %w", p.cfg.StartTimeout, err)
		case <-ticker.C:
		}
	}
}

// wait is false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
