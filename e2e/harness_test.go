package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tcoder-dev/tcoder/e2e/daemon"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
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
	dir, err := os.MkdirTemp("", "tcoder-e2e-")
	if err != nil {
		return 1, fmt.Errorf("scratch folder: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary folder harms nobody
	if binary, err = daemon.Program(dir); err != nil {
		return 1, err
	}

	return s3test.Wrap(redistest.Wrap(m)).Run(), nil
}

// Bounds of the tests; nothing waits for their whole length unless it fails.
const (
	jobWithin = 8 * time.Minute
	pollEvery = 50 * time.Millisecond
)

// start runs a tcoder command that stops at the end of the test. Its folder
// is where relative paths lead.
func start(t *testing.T, dir string, env []string, args ...string) *daemon.Daemon {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)

	return daemon.Start(t, cmd)
}

func freeAddress(t *testing.T) string {
	t.Helper()

	return daemon.FreeAddress(t, "127.0.0.1")
}

// stack is a running `tcoder up`.
type stack struct {
	*daemon.Daemon

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
	s.Daemon = start(t, t.TempDir(), nil, append([]string{"up", "--listen", s.address, "--data", s.data}, s.flags...)...)
	waitReady(t, s.url, s.Daemon)
}

func waitReady(t *testing.T, url string, d *daemon.Daemon) {
	t.Helper()
	require.True(t, daemon.WaitReady(t, url, d), "it ended before it was ready")
}

// deployment is an empty Redis and bucket, as `tcoder serve` is told of them.
type deployment struct {
	redisURL, tag string
	storage       s3.Config
	flags, env    []string
}

func newDeployment(t *testing.T) deployment {
	t.Helper()
	redisURL, tag := redistest.New(t)
	storage := s3test.New(t)

	return deployment{
		redisURL: redisURL, tag: tag, storage: storage,
		flags: []string{
			"--redis-url", redisURL, "--redis-tag", strings.Trim(tag, "{}"),
			"--s3-endpoint", storage.Endpoint, "--bucket-in", storage.Bucket, "--bucket-out", storage.Bucket,
		},
		env: []string{"TCODER_S3_ACCESS_KEY_ID=" + storage.AccessKeyID, "TCODER_S3_SECRET_ACCESS_KEY=" + storage.SecretAccessKey},
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
