package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// binary is the tcoder under test, an absolute path.
var binary string //nolint:gochecknoglobals // set once by TestMain

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (int, error) {
	tests := s3test.Wrap(redistest.Wrap(m))
	if binary = os.Getenv("TCODER_BIN"); binary != "" {
		return tests.Run(), nil
	}
	dir, err := os.MkdirTemp("", "tcoder-e2e-")
	if err != nil {
		return 1, fmt.Errorf("scratch folder: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary folder harms nobody
	binary = filepath.Join(dir, "tcoder")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "../cmd/tcoder")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}

	return tests.Run(), nil
}

// Bounds of the tests; nothing waits for their whole length unless it fails.
const (
	readyWithin = time.Minute
	stopWithin  = 30 * time.Second
	jobWithin   = 3 * time.Minute
	pollEvery   = 50 * time.Millisecond
)

// daemon is a long-running tcoder command.
type daemon struct {
	cmd  *exec.Cmd
	log  string // path of what it prints
	done chan struct{}
}

// start runs a tcoder command that stops at the end of the test. Its folder
// is where relative paths lead.
func start(t *testing.T, dir string, env []string, args ...string) *daemon {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), args[0]+"-*.log")
	require.NoError(t, err)
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: a Ctrl-C meant for the tests must reach the daemon through its test only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	require.NoError(t, cmd.Start())
	d := &daemon{cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go func() {
		defer close(d.done)
		_ = cmd.Wait() // the state is read from cmd
		_ = log.Close()
	}()
	t.Cleanup(func() {
		d.signal(syscall.SIGTERM)
		if !d.ended(stopWithin) {
			d.kill()
		}
		if t.Failed() {
			text, _ := os.ReadFile(d.log)
			t.Logf("%s printed:\n%s", strings.Join(args, " "), tail(text))
		}
	})

	return d
}

func tail(text []byte) []byte {
	const most = 12_000
	if len(text) > most {
		return text[len(text)-most:]
	}

	return text
}

func (d *daemon) signal(s syscall.Signal) {
	if err := d.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(err)
	}
}

// kill is kill -9, and waits for the end.
func (d *daemon) kill() {
	d.signal(syscall.SIGKILL)
	<-d.done
}

func (d *daemon) ended(within time.Duration) bool {
	select {
	case <-d.done:
		return true
	case <-time.After(within):
		return false
	}
}

// stop sends a signal and requires a clean exit.
func (d *daemon) stop(t *testing.T, s syscall.Signal) {
	t.Helper()
	d.signal(s)
	require.True(t, d.ended(stopWithin), "it doesn't stop")
	require.Equal(t, 0, d.cmd.ProcessState.ExitCode(), "it stops with an error")
}

// freeAddress returns a loopback address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // nothing was written

	return listener.Addr().String()
}

// stack is a running `tcoder up`.
type stack struct {
	*daemon
	address string
	url     string
	data    string
	flags   []string
}

// up starts `tcoder up` on an empty data folder and waits until it serves.
func up(t *testing.T, flags ...string) *stack {
	t.Helper()
	s := &stack{address: freeAddress(t), data: filepath.Join(t.TempDir(), "data"), flags: flags}
	s.url = "http://" + s.address
	s.start(t)

	return s
}

// start starts `tcoder up`, again on the same folder and port if it ran before.
func (s *stack) start(t *testing.T) {
	t.Helper()
	s.daemon = start(t, t.TempDir(), nil, append([]string{"up", "--listen", s.address, "--data", s.data}, s.flags...)...)
	waitReady(t, s.url, s.daemon)
}

func waitReady(t *testing.T, url string, d *daemon) {
	t.Helper()
	probe := http.Client{Timeout: time.Second}
	defer probe.CloseIdleConnections()
	require.Eventually(t, func() bool {
		select {
		case <-d.done:
			return true
		default:
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/readyz", http.NoBody)
		require.NoError(t, err)
		res, err := probe.Do(req)
		if err != nil {
			return false
		}

		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}, readyWithin, pollEvery)
	select {
	case <-d.done:
		require.Fail(t, "it ended before it was ready")
	default:
	}
}

func client(t *testing.T, url string) *tcoder.Client {
	t.Helper()
	c, err := tcoder.New(url)
	require.NoError(t, err)

	return c
}

// cli runs a tcoder command to its end.
func cli(t *testing.T, url string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "TCODER_SERVER="+url)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", errs.String())
	}

	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// transcode runs `tcoder transcode --json` and returns the job that it prints.
func transcode(t *testing.T, url, clip string, args ...string) *tcoderv1.Job {
	t.Helper()
	out, errs, _ := cli(t, url, append([]string{"transcode", clip, "--json"}, args...)...)
	require.NotEmpty(t, out, errs)

	return parseJob(t, out)
}

func parseJob(t *testing.T, out string) *tcoderv1.Job {
	t.Helper()
	job := new(tcoderv1.Job)
	require.NoError(t, protojson.Unmarshal([]byte(out), job), out)

	return job
}

// cliError is what --json prints where there is no job.
type cliError struct {
	Error struct {
		Code    string `json:"code"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"error"`
}

func parseError(t *testing.T, out string) cliError {
	t.Helper()
	var e cliError
	require.NoError(t, json.Unmarshal([]byte(out), &e), out)

	return e
}
