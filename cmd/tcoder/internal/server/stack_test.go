package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// record collects what happens, in order.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// obedient is a part that ends when it is told to.
func (r *record) obedient(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		r.add(name)

		return nil
	}
}

// Parts are stopped in reverse order, each when those that need it are gone,
// although the context that they were started with ended before.
func TestStackStopsInReverseOrder(t *testing.T) {
	t.Parallel()
	r := &record{}
	ctx, cancel := context.WithCancelCause(t.Context())
	parts := newStack(slog.New(slog.DiscardHandler))
	for _, name := range []string{"a", "b", "c"} {
		parts.start(ctx, name, r.obedient(name))
	}
	cancel(cli.ErrInterrupted)
	require.ErrorIs(t, parts.wait(ctx, nil), cli.ErrInterrupted)
	require.NoError(t, parts.stop(t.Context()))
	require.Equal(t, []string{"c", "b", "a"}, r.lines)
}

// A part that ends early ends the wait, with its error or for its end.
func TestStackNoticesAnEarlyEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, cause := range []error{broken, nil} {
		r := &record{}
		parts := newStack(slog.New(slog.DiscardHandler))
		parts.start(t.Context(), "a", r.obedient("a"))
		parts.start(t.Context(), "b", func(context.Context) error { return cause })
		err := parts.wait(t.Context(), nil)
		if cause == nil {
			cause = errEndedEarly
		}
		require.ErrorIs(t, err, cause)
		_ = parts.stop(t.Context()) // it tells the same error again
		require.Equal(t, []string{"a"}, r.lines)
	}
}

// The second signal waits for nobody.
func TestStackGivesUpOnTheSecondSignal(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	parts := newStack(slog.New(slog.DiscardHandler))
	parts.start(t.Context(), "stubborn", func(context.Context) error {
		<-release

		return nil
	})
	hard, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cli.ErrInterrupted) })
	require.ErrorIs(t, parts.stop(hard), cli.ErrInterrupted)
	close(release)
	<-parts.parts[0].done
}

// One `up` at a time has a data folder; the next one gets it when the first is
// gone, and it lies where it was named whatever the working folder becomes.
func TestDataDirIsExclusive(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "data")
	first, err := openDataDir(path)
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(first.path))
	_, err = openDataDir(path)
	require.ErrorIs(t, err, errDataInUse)
	require.NoError(t, first.close())
	second, err := openDataDir(path)
	require.NoError(t, err)
	require.NoError(t, second.close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func program(env map[string]string) *cli.Program {
	return &cli.Program{LookupEnv: func(name string) (string, bool) { value, ok := env[name]; return value, ok }}
}

// Keys may name a project, and stand for the default one otherwise.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	keys, err := parseAPIKeys("one, team=two")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"one": "default", "two": "team"}, keys)
	keys, err = parseAPIKeys("default=c2VjcmV0c2VjcmV0==, one, default=one")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"c2VjcmV0c2VjcmV0==": "default", "one": "default"}, keys)
	for _, bad := range []string{"c2VjcmV0c2VjcmV0==", "c2VjcmV0c2VjcmV0=", "=key", "a:b=key", "a/b=key", ".=key", "a=key,b=key"} {
		_, err = parseAPIKeys(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "c2Vj")
	}
}

// The keys of the object store come from our names, or else from those of AWS
// tools, never mixed.
func TestStorageKeys(t *testing.T) {
	t.Parallel()
	aws := map[string]string{awsAccessKeyEnv: "aws", awsSecretKeyEnv: "aws-secret"}
	var s Storage
	s.ReadSecrets(program(aws))
	require.Equal(t, "aws", s.AccessKeyID)
	require.NoError(t, s.CheckS3())
	aws[accessKeyEnv] = "ours"
	s.ReadSecrets(program(aws))
	require.Equal(t, "ours", s.AccessKeyID)
	require.Empty(t, s.SecretKey)
	require.Error(t, s.CheckS3())
}

// A port that another program has is said in words that help.
func TestBusyPort(t *testing.T) {
	t.Parallel()
	first := controlSettings{listen: "127.0.0.1:0"}
	listener, err := first.bind(t.Context())
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // nothing was written
	second := controlSettings{listen: listener.Addr().String()}
	_, err = second.bind(t.Context())
	require.ErrorContains(t, err, "--listen")
}
