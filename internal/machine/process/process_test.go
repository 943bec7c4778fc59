package process_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/machinetest"
	"github.com/tcoder-dev/tcoder/internal/machine/process"
)

const patience = 20 * time.Second

// TestMain is also the program of the machines: it plays the role that its
// environment names.
func TestMain(m *testing.M) {
	switch role := os.Getenv("TCODER_TEST_ROLE"); role {
	case "":
		goleak.VerifyTestMain(m)
	case "control plane":
		playControlPlane()
	default:
		playWorker(role)
	}
}

// playWorker writes its pid, environment included, and ends when told.
func playWorker(role string) {
	term, fail, end := make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Notify(fail, syscall.SIGUSR1)
	signal.Notify(end, syscall.SIGUSR2)
	note := filepath.Join(os.Getenv("TCODER_TEST_DIR"), os.Getenv("TCODER_TEST"))
	text := strconv.Itoa(os.Getpid()) + "\n" + strings.Join(os.Environ(), "\n")
	if os.WriteFile(note+".tmp", []byte(text), 0o600) != nil || os.Rename(note+".tmp", note) != nil {
		os.Exit(2)
	}
	for {
		select {
		case <-term:
			if role != "stubborn" {
				os.Exit(3) // as a worker that had to hand back its tasks
			}
		case <-fail:
			os.Exit(1)
		case <-end:
			os.Exit(0)
		case <-time.After(patience):
			os.Exit(4)
		}
	}
}

// playControlPlane makes one machine and waits to be killed.
func playControlPlane() {
	dir := os.Getenv("TCODER_TEST_DIR")
	p, err := process.New(config(dir, "worker"))
	if err != nil {
		os.Exit(1)
	}
	go func() { _ = p.Run(context.Background()) }()
	if _, err := p.Create(context.Background(), machine.CreateRequest{ID: "m1", Env: map[string]string{"TCODER_TEST": "m1"}}); err != nil {
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "created")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func config(dir, role string) process.Config {
	return process.Config{
		Command: []string{os.Args[0]},
		Env:     []string{"TCODER_TEST_DIR=" + dir, "TCODER_TEST_ROLE=" + role},
	}
}

// start runs a provider until the test ends.
func start(t *testing.T, cfg process.Config) (*process.Provider, context.CancelFunc) {
	t.Helper()
	p, err := process.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return p, cancel
}

// workerPID waits until a machine's program is up.
func workerPID(t *testing.T, dir, id string) int {
	t.Helper()
	pid, _ := worker(t, dir, id)
	return pid
}

func worker(t *testing.T, dir, id string) (int, []string) {
	t.Helper()
	var text []byte
	require.Eventually(t, func() bool {
		var err error
		text, err = os.ReadFile(filepath.Join(dir, id))
		return err == nil
	}, patience, 5*time.Millisecond, "machine %s never came up", id)
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(lines[0])
	require.NoError(t, err)
	return pid, lines[1:]
}

// alive reports whether a process runs; one that nobody reaped is dead.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// TestConformance: child processes are machines like any other.
func TestConformance(t *testing.T) {
	t.Parallel()
	machinetest.Run(t, func(t *testing.T) machinetest.Fixture {
		t.Helper()
		dir := t.TempDir()
		p, _ := start(t, config(dir, "worker"))
		return machinetest.Fixture{Provider: p, End: func(t *testing.T, id string, fail bool) {
			t.Helper()
			sig := syscall.SIGUSR2
			if fail {
				sig = syscall.SIGUSR1
			}
			require.NoError(t, syscall.Kill(workerPID(t, dir, id), sig))
		}}
	})
}

// TestEnvironment: a child sees what it was given and nothing of ours.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, _ := start(t, config(dir, "worker"))
	_, err := p.Create(t.Context(), machine.CreateRequest{ID: "m1", Env: map[string]string{"TCODER_TEST": "m1"}})
	require.NoError(t, err)
	_, env := worker(t, dir, "m1")
	require.ElementsMatch(t, []string{"TCODER_TEST=m1", "TCODER_TEST_DIR=" + dir, "TCODER_TEST_ROLE=worker"}, env)
}

// TestShutdown: the end of Run ends every child, one that ignores SIGTERM
// after the stop timeout, and no machine can be made from then on.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"worker", "stubborn"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg := config(dir, role)
			if role == "stubborn" {
				cfg.StopTimeout = 50 * time.Millisecond
			}
			p, cancel := start(t, cfg)
			pids := make([]int, 0, 2)
			for _, id := range []string{"m1", "m2"} {
				_, err := p.Create(t.Context(), machine.CreateRequest{ID: id, Env: map[string]string{"TCODER_TEST": id}})
				require.NoError(t, err)
				pids = append(pids, workerPID(t, dir, id))
			}
			cancel()
			for _, pid := range pids {
				require.Eventually(t, func() bool { return !alive(pid) }, patience, 5*time.Millisecond)
			}
			_, err := p.Create(t.Context(), machine.CreateRequest{ID: "m3"})
			require.ErrorIs(t, err, machine.ErrUnavailable)
		})
	}
}

// TestMissingProgram: a program that isn't there is an error of Create, and
// leaves no machine.
func TestMissingProgram(t *testing.T) {
	t.Parallel()
	p, _ := start(t, process.Config{Command: []string{filepath.Join(t.TempDir(), "nothing")}})
	_, err := p.Create(t.Context(), machine.CreateRequest{ID: "m1"})
	require.ErrorIs(t, err, os.ErrNotExist)
	instances, err := p.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, instances)
}

// TestControlPlaneKilled: after kill -9 of the control plane no child is left.
func TestControlPlaneKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{"TCODER_TEST_DIR=" + dir, "TCODER_TEST_ROLE=control plane"}
	_, err := cmd.StdinPipe() // held open: it waits on it
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "created\n", line)
	pid := workerPID(t, dir, "m1")
	require.True(t, alive(pid))

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return !alive(pid) }, patience, 5*time.Millisecond)
}
