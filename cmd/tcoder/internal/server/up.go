package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/local"
)

// up is the whole stack on one computer.
type up struct {
	serve

	data string
}

func newUpCommand(program *cli.Program, version string) *cobra.Command {
	u := &up{serve: serve{Program: program, version: version}}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this computer",
		Long: `Run everything on this computer: the control plane, a Redis server and an S3
server with their data in one folder, and workers that come when there is work
and leave when there is none.

With --redis-url and --s3-endpoint it uses external ones instead. Ctrl-C stops
all of it in order, a second one kills; starting again finds every job as it was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return u.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&u.data, "data", ".tcoder", "folder of the data")
	u.control.register(cmd)
	u.storage.Register(cmd)
	u.pool.register(cmd, poolProcess, time.Minute)
	u.logs.register(cmd)

	return cmd
}

func (u *up) run(ctx context.Context) (err error) {
	log, err := u.read()
	if err != nil {
		return err
	}
	if u.storage.Endpoint != "" {
		if err := u.storage.CheckS3(); err != nil {
			return err
		}
	}
	if u.storage.RedisURL == "" {
		if _, err := exec.LookPath("redis-server"); err != nil {
			return fmt.Errorf("%w (in a checkout: make deps)", local.ErrNoRedisServer)
		}
	}
	gentle, hard, stop := u.Signals(ctx)
	defer stop()
	data, err := openDataDir(u.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.close()) }()
	u.pool.scratch = data.join("scratch")
	u.pool.inherit(u.Program)
	listener, err := u.control.bind(gentle)
	if err != nil {
		return err
	}

	parts := newStack(log)
	servers := &servers{data: data, log: log}
	control, err := u.start(gentle, parts, servers, listener)
	if err == nil {
		u.greet(control, data)
		err = parts.wait(gentle, nil)
	}
	if errors.Is(err, cli.ErrInterrupted) {
		u.Logf("stopping (Ctrl-C again to kill)")
	}

	return u.end(hard, err, parts, func(ctx context.Context) error {
		return errors.Join(control.kill(ctx), servers.kill())
	})
}

// start starts the servers, then the control plane on them.
func (u *up) start(ctx context.Context, parts *stack, servers *servers, listener net.Listener) (*control, error) {
	if err := servers.start(ctx, parts, &u.storage); err != nil {
		return nil, errors.Join(err, listener.Close())
	}

	return u.assemble(ctx, parts, listener, servers.log, servers.prepare)
}

// greet says where everything is and what to try.
func (u *up) greet(c *control, data *dataDir) {
	address := strings.TrimPrefix(c.serverURL, "http://")
	flag := ""
	if c.serverURL != defaultServerURL {
		flag = " --server " + c.serverURL
	}
	workers := "workers attach by 'tcoder worker" + flag + "'"
	if u.pool.provider == poolProcess {
		workers = fmt.Sprintf("up to %d at a time, gone after %s without work", u.pool.limit, u.pool.idle)
	}
	u.Printf(`tcoder is ready.

  API      %s (Connect, gRPC, gRPC-Web, JSON)
  data     %s
  workers  %s

Try it in another terminal:

  %s transcode clip.mp4 --preset hls-adaptive -o out/%s
  grpcurl -plaintext %s tcoder.v1.JobService/ListPresets

Ctrl-C stops everything.
`, c.serverURL, data.path, workers, os.Args[0], flag, address)
}

// servers are the Redis and S3 children of up, each nil where an external one
// is used.
type servers struct {
	data  *dataDir
	log   *slog.Logger
	redis *local.Redis
	s3    *local.S3
}

// start starts what the settings don't name, waits until it serves, and
// completes the settings.
func (s *servers) start(ctx context.Context, parts *stack, storage *Storage) error {
	if storage.RedisURL == "" {
		redis, err := local.NewRedis(local.RedisConfig{Dir: s.data.join("redis"), Log: s.log})
		if err != nil {
			return err
		}
		s.redis, storage.RedisURL = redis, redis.URL()
		parts.start(ctx, "Redis", redis.Run)
	}
	if storage.Endpoint == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		s3, err := local.NewS3(local.S3Config{Dir: s.data.join("s3"), Command: []string{self, "s3d"}, Log: s.log})
		if err != nil {
			return err
		}
		s.s3 = s3
		parts.start(ctx, "S3", s3.Run)
	}
	if s.redis != nil {
		if err := parts.wait(ctx, s.redis.Ready()); err != nil {
			return err
		}
	}
	if s.s3 != nil {
		if err := parts.wait(ctx, s.s3.Ready()); err != nil {
			return err
		}
		keys := s.s3.Credentials()
		storage.Endpoint, storage.AccessKeyID, storage.SecretKey = s.s3.Endpoint(), keys.AccessKeyID, keys.SecretAccessKey
		storage.PathStyle = true
	}

	return nil
}

// prepare makes our own object store usable for web pages; an external one is
// its owner's.
func (s *servers) prepare(ctx context.Context, st *stores) error {
	if s.s3 == nil {
		return nil
	}

	return st.allowPages(ctx)
}

// kill ends the children at once.
func (s *servers) kill() error {
	var errs []error
	if s.redis != nil {
		errs = append(errs, killGroup(s.redis.PID()))
	}
	if s.s3 != nil {
		errs = append(errs, killGroup(s.s3.PID()))
	}

	return errors.Join(errs...)
}

func killGroup(pid int) error {
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %d: %w", pid, err)
	}

	return nil
}
