// Package daemon runs long-lived programs for tests: they end with the test,
// whatever happens to it, and what they printed is told if it fails.
package daemon

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Bounds; nothing waits for their whole length unless it fails.
const (
	readyWithin = time.Minute
	stopWithin  = 30 * time.Second
	pollEvery   = 50 * time.Millisecond
)

// mostOutput is how much of the end of a log is told.
const mostOutput = 12_000

// Daemon is a running program.
type Daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// Start runs a program that is stopped at the end of the test. Its output goes
// where the command says. If it says nothing, the test tells it when it fails.
func Start(t *testing.T, cmd *exec.Cmd) *Daemon {
	t.Helper()
	log := ""
	if cmd.Stdout == nil {
		file, err := os.CreateTemp(t.TempDir(), "*.log")
		require.NoError(t, err)
		defer file.Close() //nolint:errcheck // the program has it
		cmd.Stdout, cmd.Stderr = file, file
		log = file.Name()
	}
	// A group of its own: a Ctrl-C meant for the tests must reach the program through its test only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	require.NoError(t, cmd.Start())
	d := &Daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		_ = cmd.Wait() // the state is read from cmd
	}()
	t.Cleanup(func() {
		d.Signal(syscall.SIGCONT)
		d.Signal(syscall.SIGTERM)
		if !d.Ended(stopWithin) {
			d.Kill()
		}
		if log != "" && t.Failed() {
			t.Logf("%s printed:\n%s", strings.Join(cmd.Args[1:], " "), Tail(log))
		}
	})

	return d
}

// Tail is the end of a log.
func Tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}

	return string(text[max(0, len(text)-mostOutput):])
}

// PID is the process's id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Done is closed when it has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// ExitCode is its exit code once it has ended, -1 if a signal ended it.
func (d *Daemon) ExitCode() int { return d.cmd.ProcessState.ExitCode() }

// Signal sends a signal, unless it has ended.
func (d *Daemon) Signal(s syscall.Signal) {
	if err := d.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(err)
	}
}

// Kill is kill -9, and waits for the end.
func (d *Daemon) Kill() {
	d.Signal(syscall.SIGKILL)
	<-d.done
}

// Ended waits for the end, so long at most.
func (d *Daemon) Ended(within time.Duration) bool {
	select {
	case <-d.done:
		return true
	case <-time.After(within):
		return false
	}
}

// Stop sends a signal and requires a clean exit.
func (d *Daemon) Stop(t *testing.T, s syscall.Signal) {
	t.Helper()
	d.Signal(s)
	require.True(t, d.Ended(stopWithin), "it doesn't stop")
	require.Equal(t, 0, d.ExitCode(), "it stops with an error")
}

// FreeAddress returns an address of a host that nothing listens on.
func FreeAddress(t *testing.T, host string) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // nothing was written

	return listener.Addr().String()
}

// WaitReady waits until a control plane is ready to serve. False if the program
// ended before.
func WaitReady(t *testing.T, url string, d *Daemon) bool {
	t.Helper()
	probe := http.Client{Timeout: time.Second}
	defer probe.CloseIdleConnections()
	ready := func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/readyz", http.NoBody)
		require.NoError(t, err)
		res, err := probe.Do(req)
		if err != nil {
			return false
		}

		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}
	deadline := time.After(readyWithin)
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for !ready() {
		select {
		case <-ticker.C:
		case <-d.Done():
			return false
		case <-deadline:
			require.Fail(t, "it doesn't get ready")
		}
	}

	return true
}
