package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// maxOpenFiles bounds descriptors: an output of every rung, and some.
const maxOpenFiles = 256

// The reasons for which a process is ended early, as causes of its context.
var (
	errStalled   = errors.New("no progress")
	errTimeLimit = errors.New("time limit passed")
	errMemory    = errors.New("memory limit passed")
	errProcessor = errors.New("processor time spent")
)

// errConfine is why a process didn't become the program: its sandbox failed.
var errConfine = errors.New("the sandbox failed")

// process is one run of a program. Its zero values mean: no standard output,
// no time limit, no watchdog.
type process struct {
	path   string
	args   []string
	dir    string
	stdout io.Writer
	// stderr gets all of the standard error, of which exit has the end. Nil means
	// that nobody does.
	stderr io.Writer
	// sandbox keeps the process; nil means limits alone.
	sandbox *sandbox.Sandbox
	// port is the one that the process may connect to.
	port uint16
	// timeLimit bounds the wall time, and processor seconds accordingly.
	timeLimit time.Duration
	// stallTimeout ends the process when neither beat was called nor a file
	// below dir changed for so long.
	stallTimeout time.Duration
	// killGrace is the time between SIGTERM and SIGKILL.
	killGrace time.Duration
	// maxMemoryBytes bounds resident memory. Addresses are bounded too, but more
	// loosely: threads reserve many.
	maxMemoryBytes uint64
	maxFileBytes   uint64
	// hurry is for what somebody waits for to be able to watch.
	hurry bool
	// brake may stop the process and continue it; nil: nothing does. The time
	// limit goes on meanwhile, stallTimeout doesn't.
	brake *Brake
	// onHeld is called now and then while it is stopped. Nil means not at all.
	onHeld func()

	beats atomic.Int64
}

// beat tells the watchdog that the process makes progress.
func (p *process) beat() { p.beats.Add(1) }

// exit is how a process ended.
type exit struct {
	// code is the exit status, -1 if a signal ended it.
	code int
	// signal is what ended it, 0 if it exited.
	signal syscall.Signal
	// log is the end of its standard error.
	log string
}

// run runs the process in a group of its own, which ends with this process or
// with ctx: SIGTERM first, SIGKILL after the grace. It returns when the whole
// group is dead. The error is errStalled, errTimeLimit or errMemory, ctx's own
// when the caller cancelled, or why it didn't start; a failure of the program
// itself is in exit.
func (p *process) run(parent context.Context) (exit, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)

	if p.timeLimit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, p.timeLimit, errTimeLimit)
		defer stop()
	}

	log := &tail{size: maxLog}

	cmd, err := p.command(ctx)
	if err != nil {
		return exit{code: -1}, startError(parent, err)
	}

	cmd.Stdout, cmd.Stderr = p.stdout, log
	if p.stderr != nil {
		cmd.Stderr = io.MultiWriter(log, p.stderr)
	}

	// Standard output may be held open by what SIGKILL didn't reach.
	cmd.WaitDelay = 2 * p.killGrace

	brake := p.brake
	if brake == nil {
		brake = new(Brake)
	}

	var kill *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		kill = time.AfterFunc(p.killGrace, func() { _ = syscall.Kill(group, syscall.SIGKILL) })

		brake.detach()

		err := syscall.Kill(group, syscall.SIGTERM)
		_ = syscall.Kill(group, syscall.SIGCONT) // a stopped process learns of it when it goes on

		return err
	}

	if err := cmd.Start(); err != nil {
		return exit{code: -1}, startError(parent, err)
	}

	brake.attach(cmd.Process.Pid)

	watched := make(chan struct{})
	done := make(chan struct{})

	go func() {
		defer close(watched)
		p.watch(cmd.Process.Pid, brake, done, cancel)
	}()

	err = cmd.Wait()

	brake.detach()
	close(done)
	<-watched

	if kill != nil { // set before Wait returned: Wait waits for Cancel
		kill.Stop()
	}

	result := exit{code: cmd.ProcessState.ExitCode(), log: log.String()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.signal = status.Signal()
	}

	if result.code == sandbox.ExitFailed && strings.HasPrefix(result.log, sandbox.Prefix) {
		return result, errConfine
	}

	if p.spent(cmd.ProcessState) {
		return result, errProcessor
	}

	return result, endError(parent, ctx, err)
}

// command is the process in its sandbox.
func (p *process) command(ctx context.Context) (*exec.Cmd, error) {
	keeper := p.sandbox
	if keeper == nil {
		keeper = sandbox.Limited()
	}

	limits := sandbox.Limits{FileBytes: p.maxFileBytes, OpenFiles: maxOpenFiles}

	limits.CPUSeconds = p.processorSeconds()

	if p.maxMemoryBytes > 0 {
		// The C library reserves so much for the memory of threads, and stacks.
		const base, perProcessor = 4 << 30, 1 << 30

		limits.AddressBytes = 2*p.maxMemoryBytes + base + perProcessor*uint64(runtime.NumCPU())
	}

	return keeper.Command(ctx, sandbox.Run{Path: p.path, Args: p.args, Dir: p.dir, Port: p.port, Limits: limits, Hurry: p.hurry})
}

// processorSeconds bounds what the process may spend; 0: no bound.
func (p *process) processorSeconds() uint64 {
	const slack = 10

	if p.timeLimit <= 0 {
		return 0
	}

	return uint64(p.timeLimit/time.Second)*uint64(runtime.NumCPU()) + slack
}

// spent reports whether the process was ended because it spent its processor
// time. FFmpeg handles the signal, and exits as if it had failed.
func (p *process) spent(state *os.ProcessState) bool {
	most := p.processorSeconds()

	return most > 0 && !state.Success() && state.UserTime()+state.SystemTime() >= time.Duration(most)*time.Second
}

// startError tells why a process didn't start.
func startError(parent context.Context, err error) error {
	if parent.Err() != nil {
		return fmt.Errorf("start: %w", parent.Err())
	}

	return fmt.Errorf("start: %w", err)
}

// endError tells why a process was ended from outside, nil if it wasn't.
func endError(parent, ctx context.Context, err error) error {
	var exited *exec.ExitError

	switch cause := context.Cause(ctx); {
	case err == nil, errors.As(err, &exited) && ctx.Err() == nil:
		return nil
	case parent.Err() != nil:
		return fmt.Errorf("stopped: %w", parent.Err())
	case errors.Is(cause, errStalled) || errors.Is(cause, errTimeLimit) || errors.Is(cause, errMemory):
		return cause
	default:
		return fmt.Errorf("wait: %w", err)
	}
}

// watchInterval is how often memory is looked at: FFmpeg can fill a gigabyte
// in a second.
const watchInterval = 200 * time.Millisecond

// watch cancels when nothing moves for stallTimeout though it could, or memory
// passes its limit.
func (p *process) watch(pid int, brake *Brake, done <-chan struct{}, cancel context.CancelCauseFunc) {
	const looks = 8 // at files, per timeout

	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()

	pulse := pulse{process: p, beats: -1, since: time.Now(), interval: p.stallTimeout / looks}

	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}

		if p.maxMemoryBytes > 0 && resident(pid) > p.maxMemoryBytes {
			cancel(errMemory)

			return
		}

		if brake.holds() {
			p.beat()

			if p.onHeld != nil {
				p.onHeld()
			}
		}

		if p.stallTimeout > 0 && pulse.silence() >= p.stallTimeout {
			cancel(errStalled)

			return
		}
	}
}

// pulse tells how long nothing has moved.
type pulse struct {
	process  *process
	beats    int64
	files    string
	since    time.Time
	looked   time.Time
	interval time.Duration // between looks at files
}

func (p *pulse) silence() time.Duration {
	if n := p.process.beats.Load(); n != p.beats {
		p.beats, p.since = n, time.Now()
	}

	// FFmpeg is silent while it moves the index to the front of an MP4.
	if time.Since(p.looked) >= p.interval {
		p.looked = time.Now()
		if f := newest(p.process.dir); f != p.files {
			p.files, p.since = f, time.Now()
		}
	}

	return time.Since(p.since)
}

// resident is the memory of a process, 0 when it is gone.
func resident(pid int) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}

	var total, pages uint64
	if _, err := fmt.Sscan(string(data), &total, &pages); err != nil {
		return 0
	}

	return pages * uint64(os.Getpagesize())
}

// newest tells one state of the files below dir from the next.
func newest(dir string) string {
	if dir == "" {
		return ""
	}

	var (
		latest time.Time
		size   int64
	)

	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // a file that just vanished is a change too
		}

		if info, err := entry.Info(); err == nil {
			size += info.Size()
			if info.ModTime().After(latest) {
				latest = info.ModTime()
			}
		}

		return nil
	})

	return fmt.Sprint(latest.UnixNano(), size)
}

// maxLog is how much of standard error is kept.
const maxLog = 16 << 10

// tail keeps the end of what is written to it.
type tail struct {
	size int
	data []byte
}

// Write never fails.
func (t *tail) Write(data []byte) (int, error) {
	t.data = append(t.data, data...)
	if over := len(t.data) - t.size; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}

	return len(data), nil
}

// String is what was kept.
func (t *tail) String() string { return string(t.data) }
