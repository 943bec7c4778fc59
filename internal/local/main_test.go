package local_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/local"
)

// TestMain lets the test binary play the parent that is killed: started with
// "parent DIR" it runs a Redis child, says its address and waits.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Arg(0) == "parent" {
		if err := parent(flag.Arg(1)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func parent(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	redis, err := local.NewRedis(local.RedisConfig{Dir: dir})
	if err != nil {
		return err
	}
	go func() {
		<-redis.Ready()
		fmt.Fprintln(os.Stdout, redis.PID())
	}()
	return redis.Run(ctx)
}

// supervised is the part that all servers share.
type supervised interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// run runs a server until stop is called, which checks that it ended well, or
// the test ends. It returns when the server is ready.
func run(t *testing.T, server supervised) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = server.Run(ctx)
	}()
	stop = func() {
		t.Helper()
		cancel(nil)
		<-done
		require.NoError(t, err)
	}
	t.Cleanup(stop)
	select {
	case <-server.Ready():
	case <-done:
		require.NoError(t, err)
		require.Fail(t, "the server ended")
	}
	return stop
}

// shortDir is short enough for a unix socket in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tcoder-") //nolint:usetesting // its folders have long names
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func alive(pid int) bool {
	if pid == 0 || syscall.Kill(pid, 0) != nil {
		return false
	}
	// A process that ended but was not collected yet still takes signals.
	stat, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
