package ffmpeg

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script is a process that runs a shell script. It tells when it is ready by
// a line, which arrives on the channel.
func script(t *testing.T, text string) (*process, <-chan string) {
	t.Helper()

	lines := make(chan string, 16)

	return &process{
		path: "/bin/sh", args: []string{"-c", text}, dir: t.TempDir(), killGrace: 100 * time.Millisecond,
		stdout: lineWriter(lines), timeLimit: 20 * time.Second,
	}, lines
}

type lineWriter chan<- string

func (w lineWriter) Write(data []byte) (int, error) {
	for line := range strings.Lines(string(data)) {
		w <- strings.TrimSpace(line)
	}

	return len(data), nil
}

// gone reports whether no process has this id, or a zombie alone.
func gone(t *testing.T, pid string) bool {
	t.Helper()

	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return true
	}

	return strings.Contains(string(stat), ") Z ")
}

// TestProcessExit guarantees that the way a program ends is told as it is.
func TestProcessExit(t *testing.T) {
	t.Parallel()

	run, _ := script(t, "echo trouble >&2; exit 3")
	end, err := run.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, exit{code: 3, log: "trouble\n"}, end)

	run, _ = script(t, "kill -SEGV $$")
	end, err = run.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, syscall.SIGSEGV, end.signal)

	run, _ = script(t, "")
	run.path = filepath.Join(t.TempDir(), "nothing")
	_, err = run.run(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestProcessCancel guarantees that a cancel ends the whole group, also a
// member that ignores SIGTERM, within twice the grace and some.
func TestProcessCancel(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	// The grandchild shares standard output, so run can't return before it ends.
	run, lines := script(t, `trap "" TERM; sleep 60 & echo $!; echo $$; wait`)
	ended := make(chan error, 1)

	go func() {
		_, err := run.run(ctx)
		ended <- err
	}()

	child, parent := <-lines, <-lines
	start := time.Now()

	cancel()

	require.ErrorIs(t, <-ended, context.Canceled)
	require.Less(t, time.Since(start), 10*time.Second)
	require.True(t, gone(t, parent))
	require.Eventually(t, func() bool { return gone(t, child) }, 10*time.Second, time.Millisecond)
}

// TestProcessGrace guarantees that a program gets SIGTERM first, and the time
// to leave by itself.
func TestProcessGrace(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	run, lines := script(t, `trap "echo bye; exit 0" TERM; echo ready; while :; do read line || sleep 0.01; done`)
	run.killGrace = 10 * time.Second
	ended := make(chan error, 1)

	go func() {
		_, err := run.run(ctx)
		ended <- err
	}()

	require.Equal(t, "ready", <-lines)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Equal(t, "bye", <-lines)
}

// TestProcessLimits guarantees that time ends a program that goes on, and
// silence one that does nothing, while growing files count as progress.
func TestProcessLimits(t *testing.T) {
	t.Parallel()

	t.Run("time", func(t *testing.T) {
		t.Parallel()

		run, _ := script(t, "sleep 60")
		run.timeLimit = 50 * time.Millisecond
		_, err := run.run(t.Context())
		require.ErrorIs(t, err, errTimeLimit)
	})
	t.Run("silence", func(t *testing.T) {
		t.Parallel()

		run, _ := script(t, "sleep 60")
		run.stallTimeout = 80 * time.Millisecond
		_, err := run.run(t.Context())
		require.ErrorIs(t, err, errStalled)
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()

		// A shell takes a few hundred pages.
		run, _ := script(t, "sleep 60")
		run.maxMemoryBytes = 4096
		_, err := run.run(t.Context())
		require.ErrorIs(t, err, errMemory)
	})
	t.Run("beats", func(t *testing.T) {
		t.Parallel()

		run, lines := script(t, "for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done")
		run.stallTimeout = 800 * time.Millisecond

		done := make(chan struct{})

		go func() {
			defer close(done)

			for line := range lines {
				run.beat()

				if line == "6" {
					return
				}
			}
		}()

		_, err := run.run(t.Context())
		require.NoError(t, err)
		<-done
	})
	t.Run("files", func(t *testing.T) {
		t.Parallel()

		run, _ := script(t, "mkdir out; for i in 1 2 3 4 5 6; do echo $i >> out/file; sleep 0.2; done")
		run.stallTimeout = 800 * time.Millisecond
		_, err := run.run(t.Context())
		require.NoError(t, err)
	})
}

// TestProcessConfinement guarantees that a program finds no environment, has
// its limits, and makes room for others.
func TestProcessConfinement(t *testing.T) {
	t.Parallel()

	run, lines := script(t, `nice; ulimit -t; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD=; echo "$(ulimit -c) $(ulimit -n) $(ulimit -f)"`)
	run.maxFileBytes = 1 << 20
	end, err := run.run(t.Context())
	require.NoError(t, err, end.log)

	close(run.stdout.(lineWriter)) //nolint:forcetypeassert // made above

	var output []string
	for line := range lines {
		output = append(output, line)
	}

	processor := fmt.Sprint(run.timeLimit.Seconds()*float64(runtime.NumCPU()) + 10)
	require.Equal(t, []string{"10", processor, "0 256 2048"}, output)
}

// TestProcessHurry guarantees that what somebody waits for goes before other
// programs, and not before the worker.
func TestProcessHurry(t *testing.T) {
	t.Parallel()

	run, lines := script(t, "nice")
	run.hurry = true
	end, err := run.run(t.Context())
	require.NoError(t, err, end.log)

	close(run.stdout.(lineWriter)) //nolint:forcetypeassert // made above
	require.Equal(t, "2", <-lines)
}

// TestProcessLog guarantees that a program that floods standard error costs a
// bounded memory, and that its last words are kept.
func TestProcessLog(t *testing.T) {
	t.Parallel()

	run, _ := script(t, "i=0; while [ $i -lt 5000 ]; do echo 0123456789 >&2; i=$((i+1)); done; echo last >&2")
	end, err := run.run(t.Context())
	require.NoError(t, err)
	require.Len(t, end.log, maxLog)
	require.True(t, strings.HasSuffix(end.log, "0123456789\nlast\n"))
}

var orphan = flag.Bool("orphan", false, "be the worker that TestProcessOrphan kills") //nolint:gochecknoglobals // how go test takes flags

// TestProcessOrphan guarantees that no program outlives a worker that is
// killed.
func TestProcessOrphan(t *testing.T) {
	t.Parallel()

	if *orphan {
		run := &process{path: "/bin/sleep", args: []string{"60"}, killGrace: time.Second}
		run.path, run.args, run.stdout = "/bin/sh", []string{"-c", "echo $$; exec sleep 60"}, os.Stdout
		_, err := run.run(t.Context())
		require.NoError(t, err)

		return
	}

	worker := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcessOrphan$", "-orphan")

	output, err := worker.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, worker.Start())

	pid, err := bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)

	pid = strings.TrimSpace(pid)
	_, err = strconv.Atoi(pid)
	require.NoError(t, err)
	require.False(t, gone(t, pid))

	require.NoError(t, worker.Process.Kill())
	_, _ = io.Copy(io.Discard, output)
	require.Error(t, worker.Wait())
	require.Eventually(t, func() bool { return gone(t, pid) }, 10*time.Second, time.Millisecond, fmt.Sprint("process ", pid))
}

// held runs a script that says that it is ready, stops it by a brake, and
// returns once it has been stopped for longer than it may be silent.
func held(t *testing.T, ctx context.Context, text string) (*Brake, <-chan string, <-chan error) {
	t.Helper()

	brake, seen, ended := new(Brake), make(chan struct{}, 64), make(chan error, 1)
	run, lines := script(t, text)
	run.brake, run.stallTimeout, run.killGrace = brake, 2*watchInterval, 10*time.Second
	run.onHeld = func() { seen <- struct{}{} }

	go func() {
		_, err := run.run(ctx)
		ended <- err
	}()

	require.Equal(t, "ready", <-lines)
	brake.Hold()

	for range 4 {
		<-seen
	}

	require.Empty(t, ended)

	return brake, lines, ended
}

// TestProcessHeld guarantees that a process which is stopped on purpose isn't
// taken for one that hangs, and goes on where it was.
func TestProcessHeld(t *testing.T) {
	t.Parallel()

	brake, lines, ended := held(t, t.Context(), `echo ready; sleep 0.2; echo further`)
	brake.Release()
	require.Equal(t, "further", <-lines)
	require.NoError(t, <-ended)
	brake.Hold() // nothing is there any more
}

// TestProcessHeldEnds guarantees that a stopped process is ended like any
// other: it hears SIGTERM, has its time limit, and is killed if it ignores both.
func TestProcessHeldEnds(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	_, lines, ended := held(t, ctx, `trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.01; done`)

	cancel()
	require.Equal(t, "bye", <-lines)
	require.ErrorIs(t, <-ended, context.Canceled)

	run, lines := script(t, `trap "" TERM; echo ready; while :; do sleep 0.01; done`)
	run.brake, run.timeLimit = new(Brake), 2*time.Second
	run.brake.Hold()

	_, err := run.run(t.Context())
	require.ErrorIs(t, err, errTimeLimit)
	require.Empty(t, lines, "it was stopped from its start")
}
