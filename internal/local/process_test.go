package local_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/local"
)

const soon = 20 * time.Second

// shell is a child that runs a script in which $DIR is the test's folder; it
// serves once the file "ready" is there.
func shell(dir, script string) local.ProcessConfig {
	return local.ProcessConfig{
		Name: "script",
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			cmd := exec.CommandContext(ctx, "sh", "-c", script)
			cmd.Env = append(os.Environ(), "DIR="+dir)
			return cmd, nil
		},
		Check: func(context.Context) error {
			_, err := os.Stat(filepath.Join(dir, "ready"))
			return err
		},
	}
}

const forever = `while :; do sleep 0.05; done`

// A child that dies is started again; the end of ctx stops it.
func TestProcessRestarts(t *testing.T) {
	t.Parallel()
	process := local.NewProcess(shell(t.TempDir(), `touch "$DIR/ready"; `+forever))
	stop := run(t, process)
	first := process.PID()
	require.True(t, alive(first))
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Eventually(t, func() bool { return process.PID() != first && alive(process.PID()) }, soon, 10*time.Millisecond)
	second := process.PID()
	stop()
	require.False(t, alive(second))
	require.Zero(t, process.PID())
}

// A child that never serves is not started for ever: Run ends with its last
// words.
func TestProcessExplainsFailedStart(t *testing.T) {
	t.Parallel()
	cfg := shell(t.TempDir(), `echo "$DIR" >> "$DIR/starts"; echo out; echo "no such option" >&2; exit 3`)
	var starts atomic.Int32
	command := cfg.Command
	cfg.Command = func(ctx context.Context) (*exec.Cmd, error) {
		starts.Add(1)
		return command(ctx)
	}
	cfg.StartAttempts = 3
	err := local.NewProcess(cfg).Run(t.Context())
	require.ErrorContains(t, err, "script: exit status 3")
	require.ErrorContains(t, err, "out\nno such option")
	require.EqualValues(t, 3, starts.Load())
}

// A child that runs but doesn't serve in time is stopped.
func TestProcessStartTimeout(t *testing.T) {
	t.Parallel()
	cfg := shell(t.TempDir(), forever)
	cfg.StartTimeout = 100 * time.Millisecond
	process := local.NewProcess(cfg)
	err := process.Run(t.Context())
	require.ErrorContains(t, err, "not ready after 100ms")
	require.Zero(t, process.PID())
}

// What can't be started is an error at once, and NoRestart makes a death one.
func TestProcessGivesUp(t *testing.T) {
	t.Parallel()
	cfg := shell(t.TempDir(), "")
	cfg.StartAttempts = 100
	errBroken := errors.New("broken")
	cfg.Command = func(context.Context) (*exec.Cmd, error) { return nil, errBroken }
	require.ErrorIs(t, local.NewProcess(cfg).Run(t.Context()), errBroken)

	cfg.Command = func(ctx context.Context) (*exec.Cmd, error) { return exec.CommandContext(ctx, "/does/not/exist"), nil }
	require.ErrorIs(t, local.NewProcess(cfg).Run(t.Context()), os.ErrNotExist)

	cfg = shell(t.TempDir(), `touch "$DIR/ready"; `+forever)
	cfg.NoRestart = true
	process := local.NewProcess(cfg)
	ended := make(chan error, 1)
	go func() { ended <- process.Run(t.Context()) }()
	<-process.Ready()
	require.NoError(t, syscall.Kill(process.PID(), syscall.SIGKILL))
	require.ErrorContains(t, <-ended, "signal: killed")
}

// A child that ignores SIGTERM is killed after its time, and with any child
// what it started itself.
func TestProcessKillsTheGroup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := shell(dir, `trap "" TERM; (trap "" TERM; `+forever+`) & echo $! > "$DIR/pid"; touch "$DIR/ready"; `+forever)
	cfg.StopTimeout = 50 * time.Millisecond
	process := local.NewProcess(cfg)
	stop := run(t, process)
	parentPID := process.PID()
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	require.NoError(t, err)
	childPID, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.True(t, alive(childPID))
	stop()
	require.False(t, alive(parentPID))
	require.Eventually(t, func() bool { return !alive(childPID) }, soon, 10*time.Millisecond)
}

// A context that ends before the child serves is a stop, not a failure.
func TestProcessStopsWhileStarting(t *testing.T) {
	t.Parallel()
	process := local.NewProcess(shell(t.TempDir(), forever))
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- process.Run(ctx) }()
	require.Eventually(t, func() bool { return process.PID() != 0 }, soon, time.Millisecond)
	cancel(nil)
	require.NoError(t, <-ended)
	require.Zero(t, process.PID())
}

// The second server on the same data waits for the first and serves when that
// has ended.
func TestProcessLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := shell(dir, `touch "$DIR/ready"; `+forever)
	cfg.LockFile = filepath.Join(dir, "lock")
	first := local.NewProcess(cfg)
	stopFirst := run(t, first)

	waiting := &syncBuffer{}
	cfg.Log = slog.New(slog.NewTextHandler(waiting, nil))
	second := local.NewProcess(cfg)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	require.Eventually(t, func() bool { return strings.Contains(waiting.String(), "waiting") }, soon, time.Millisecond)
	require.Zero(t, second.PID())
	stopFirst()
	<-second.Ready()
	require.True(t, alive(second.PID()))
	cancel(nil)
	require.NoError(t, <-ended)
}

// The child's output goes to the log line by line, whole lines and the rest.
func TestProcessLogsOutput(t *testing.T) {
	t.Parallel()
	logged := &syncBuffer{}
	cfg := shell(t.TempDir(), `printf 'one\n\ntw'; printf 'o\nthree'; head -c 5000 /dev/zero | tr '\0' x; exit 1`)
	cfg.Log = slog.New(slog.NewJSONHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	require.Error(t, local.NewProcess(cfg).Run(t.Context()))
	require.Equal(t, 4, strings.Count(logged.String(), `"level":"DEBUG"`), logged.String())
	for _, line := range []string{`"line":"one"`, `"line":"two"`, `"line":"three`, `"server":"script"`} {
		require.Contains(t, logged.String(), line)
	}
}

type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
