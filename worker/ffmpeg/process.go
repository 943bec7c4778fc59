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
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// niceness makes room for the worker's own loops and its neighbours.
const niceness = 10

// maxOpenFiles bounds descriptors: an output of every rung, and some.
const maxOpenFiles = 256

// The reasons for which a process is ended early, as causes of its context.
var (
	errStalled   = errors.New("no progress")
	errTimeLimit = errors.New("time limit passed")
	errMemory    = errors.New("memory limit passed")
)

// process is one run of a program. Its zero values mean: no standard output,
// no time limit, no watchdog.
type process struct {
	path   string
	args   []string
	dir    string
	stdout io.Writer
	// timeLimit bounds the wall time, and processor seconds accordingly.
	timeLimit time.Duration
	// stallTimeout ends the process when neither beat was called nor a file
	// below dir changed for so long.
	stallTimeout time.Duration
	// killGrace is the time between SIGTERM and SIGKILL.
	killGrace time.Duration
	// maxMemoryBytes bounds resident memory. A limit on addresses would count
	// what threads only reserve.
	maxMemoryBytes uint64
	maxFileBytes   uint64

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
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Dir = p.dir
	cmd.Env = []string{} // nil would be this process's own
	cmd.Stdout, cmd.Stderr = p.stdout, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// Standard output may be held open by what SIGKILL didn't reach.
	cmd.WaitDelay = 2 * p.killGrace

	var kill *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		kill = time.AfterFunc(p.killGrace, func() { _ = syscall.Kill(group, syscall.SIGKILL) })

		return syscall.Kill(group, syscall.SIGTERM)
	}

	if err := cmd.Start(); err != nil {
		return exit{code: -1}, startError(parent, err)
	}

	p.confine(cmd.Process.Pid)

	watched := make(chan struct{})
	done := make(chan struct{})

	go func() {
		defer close(watched)
		p.watch(cmd.Process.Pid, done, cancel)
	}()

	err := cmd.Wait()

	close(done)
	<-watched

	if kill != nil { // set before Wait returned: Wait waits for Cancel
		kill.Stop()
	}

	result := exit{code: cmd.ProcessState.ExitCode(), log: log.String()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.signal = status.Signal()
	}

	return result, endError(parent, ctx, err)
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

// confine sets niceness and resource limits. It is done from here, right
// after the start, because Go can't do it between fork and exec; the threads
// of the process inherit both. A refusal leaves the other bounds in place.
func (p *process) confine(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, niceness)
	limit := func(resource int, value uint64) {
		_ = unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil)
	}
	limit(unix.RLIMIT_CORE, 0)
	limit(unix.RLIMIT_NOFILE, maxOpenFiles)

	if p.maxFileBytes > 0 {
		limit(unix.RLIMIT_FSIZE, p.maxFileBytes)
	}

	if p.timeLimit > 0 {
		const slack = 10
		limit(unix.RLIMIT_CPU, uint64(p.timeLimit/time.Second)*uint64(runtime.NumCPU())+slack)
	}
}

// watchInterval is how often memory is looked at: FFmpeg can fill a gigabyte
// in a second.
const watchInterval = 200 * time.Millisecond

// watch cancels when nothing moves for stallTimeout, or memory passes its
// limit.
func (p *process) watch(pid int, done <-chan struct{}, cancel context.CancelCauseFunc) {
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
