// Package redistest gives tests a real redis-server.
//
// [New] shares one server among all tests of a binary and gives each its own
// hash tag, so they run in parallel. [Start] gives a test a server of its own
// that it may kill and start again on the same data. [StartTLS] and
// [StartCluster] give it one as hosted Redis is: encrypted and with a
// password, and as a cluster.
//
// The package's TestMain has to be [Main], or to use [Wrap], so that nothing
// is left behind. Should the test binary be killed, the kernel stops the
// servers (Linux).
package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/local"
)

// shared is the server of this test binary; there is one by intent.
var shared server //nolint:gochecknoglobals // see above

// Main runs the tests, stops the shared server, and fails if a goroutine is
// left. Call it as the whole of TestMain.
func Main(m goleak.TestingM, opts ...goleak.Option) {
	goleak.VerifyTestMain(Wrap(m), opts...)
}

// Wrap returns m so that its Run stops the shared server at the end.
// Wrappers of other servers can be put around it.
func Wrap(m goleak.TestingM) goleak.TestingM {
	shared.wrapped = true
	return wrapped{m}
}

type wrapped struct{ goleak.TestingM }

func (w wrapped) Run() int {
	code := w.TestingM.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "redistest:", err)
		return max(code, 1)
	}
	return code
}

// New returns the URL of the shared server in the form go-redis parses, and a
// hash tag, braces included, that no other test uses.
func New(t testing.TB) (url, tag string) {
	t.Helper()
	url, number, err := shared.use(t.Context())
	require.NoError(t, err, "redistest")
	name := regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(t.Name(), "-")
	return url, fmt.Sprintf("{tcoder-%s-%d}", name, number)
}

type server struct {
	mu      sync.Mutex
	wrapped bool
	started bool
	run     *run
	err     error
	dir     string
	users   int
}

func (s *server) use(ctx context.Context) (string, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wrapped {
		return "", 0, errors.New("no TestMain calls redistest.Main or redistest.Wrap: the server would be left behind")
	}
	if !s.started {
		s.started = true
		if s.dir, s.err = os.MkdirTemp("", "tcoder-redis-"); s.err == nil {
			s.run, s.err = start(ctx, local.RedisConfig{Dir: s.dir})
		}
	}
	if s.err != nil {
		return "", 0, s.err
	}
	s.users++
	return s.run.url, s.users, nil
}

func (s *server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.run != nil {
		err = s.run.stop()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// run is one life of a redis-server.
type run struct {
	process *local.Process
	url     string
	cancel  context.CancelCauseFunc
	done    chan struct{}
	err     error // set when done is closed
}

func start(ctx context.Context, cfg local.RedisConfig) (*run, error) {
	redis, err := local.NewRedis(cfg)
	if err != nil {
		return nil, fmt.Errorf("new redis: %w", err)
	}
	return launch(ctx, redis.Process, redis.URL())
}

// launch returns when the server serves.
func launch(ctx context.Context, process *local.Process, url string) (*run, error) {
	// The server outlives the test that happened to need it first.
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r := &run{process: process, url: url, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = process.Run(runCtx)
	}()
	select {
	case <-process.Ready():
		return r, nil
	case <-r.done:
		cancel(nil)
		return nil, fmt.Errorf("start redis: %w", r.err)
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), r.stop())
	}
}

func (r *run) stop() error {
	r.cancel(nil)
	<-r.done
	return r.err
}

// Options are the properties of a server of one test.
type Options struct {
	// FsyncAlways writes to disk before each answer, so that a kill can't
	// lose an acknowledged write.
	FsyncAlways bool
}

// Server is a redis-server of one test. It is stopped at the end of the test.
type Server struct {
	t   testing.TB
	cfg local.RedisConfig
	run *run
}

// Start starts a server and waits until it serves.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "tcoder-redis-") //nolint:usetesting // its names are too long for a socket
	require.NoError(t, err)
	s := &Server{t: t, cfg: local.RedisConfig{Dir: dir, FsyncAlways: opts.FsyncAlways, NoRestart: true}}
	t.Cleanup(func() {
		if s.run != nil {
			require.NoError(t, s.run.stop())
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	s.Restart()
	return s
}

// URL is the address in the form go-redis parses; the same after a restart.
func (s *Server) URL() string {
	s.t.Helper()
	require.NotNil(s.t, s.run, "the server is killed")
	return s.run.url
}

// Kill ends the server with SIGKILL and returns when it is gone. It stays
// down until Restart.
func (s *Server) Kill() {
	s.t.Helper()
	require.NotNil(s.t, s.run, "the server is killed already")
	require.NoError(s.t, syscall.Kill(s.run.process.PID(), syscall.SIGKILL))
	<-s.run.done
	s.run.cancel(nil)
	s.run = nil
}

// Restart starts a killed server on its data and waits until it serves.
func (s *Server) Restart() {
	s.t.Helper()
	require.Nil(s.t, s.run, "the server is running")
	started, err := start(s.t.Context(), s.cfg)
	require.NoError(s.t, err)
	s.run = started
}
