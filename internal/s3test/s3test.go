// Package s3test gives tests a real S3 server, the one the product starts for
// local use.
//
// One server serves all tests of a binary and [New] gives each its own bucket,
// so they run in parallel. The server is a program of its own, built on first
// use and kept in the user's cache folder.
//
// The package's TestMain has to be [Main], or to use [Wrap], so that nothing
// is left behind. Should the test binary be killed, the kernel stops the
// server (Linux).
package s3test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/local"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
)

// shared is the server of this test binary; there is one by intent.
var shared server //nolint:gochecknoglobals // see above

// Main runs the tests, stops the server, and fails if a goroutine is left.
// Call it as the whole of TestMain.
func Main(m goleak.TestingM, opts ...goleak.Option) {
	goleak.VerifyTestMain(Wrap(m), opts...)
}

// Wrap returns m so that its Run stops the server at the end. Wrappers of
// other servers can be put around it.
func Wrap(m goleak.TestingM) goleak.TestingM {
	shared.wrapped = true
	return wrapped{m}
}

type wrapped struct{ goleak.TestingM }

func (w wrapped) Run() int {
	code := w.TestingM.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "s3test:", err)
		return max(code, 1)
	}
	return code
}

// New returns the configuration of a bucket that exists, is empty, and is used
// by no other test. It goes away with the server.
func New(t testing.TB) s3.Config {
	t.Helper()
	cfg, err := shared.bucket(t.Context())
	require.NoError(t, err, "s3test")
	store, err := s3.New(cfg)
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.EnsureBucket(t.Context()))
	return cfg
}

type server struct {
	mu      sync.Mutex
	wrapped bool
	started bool
	err     error
	dir     string
	buckets int
	s3      *local.S3
	cancel  context.CancelCauseFunc
	done    chan struct{}
	runErr  error // set when done is closed
}

// bucket names the next bucket, starting the server for the first one.
func (s *server) bucket(ctx context.Context) (s3.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wrapped {
		return s3.Config{}, errors.New("no TestMain calls s3test.Main or s3test.Wrap: the server would be left behind")
	}
	if !s.started {
		s.started = true
		s.err = s.start(ctx)
	}
	if s.err != nil {
		return s3.Config{}, s.err
	}
	s.buckets++
	keys := s.s3.Credentials()
	return s3.Config{
		Endpoint:        s.s3.Endpoint(),
		AccessKeyID:     keys.AccessKeyID,
		SecretAccessKey: keys.SecretAccessKey,
		Bucket:          fmt.Sprintf("test-%d", s.buckets),
		PathStyle:       true,
	}, nil
}

func (s *server) start(ctx context.Context) error {
	binary, err := Build(ctx)
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "tcoder-s3-"); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if s.s3, err = local.NewS3(local.S3Config{Dir: s.dir, Command: []string{binary}}); err != nil {
		return fmt.Errorf("new server: %w", err)
	}
	// The server outlives the test that happened to need it first.
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cancel, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		s.runErr = s.s3.Run(runCtx)
	}()
	select {
	case <-s.s3.Ready():
		return nil
	case <-s.done:
		return fmt.Errorf("start server: %w", s.runErr)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.done != nil {
		s.cancel(nil)
		<-s.done
		err = s.runErr
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
