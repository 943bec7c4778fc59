package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/machine/process"
	"github.com/tcoder-dev/tcoder/services/autoscale"
	"github.com/tcoder-dev/tcoder/services/sweep"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// The kinds of pool.
const (
	poolProcess = "process"
	poolNone    = "none"
)

const (
	// Workers hand back what they hold within their drain grace; this is for
	// those that don't.
	workerStopTimeout = 20 * time.Second
	killTimeout       = 2 * time.Second
)

var errNoFFmpeg = errors.New("ffmpeg or ffprobe is not installed: " +
	"install them (make deps, or apt-get install ffmpeg), or run without workers of its own by --pool none")

// poolSettings say what makes workers, and how many.
type poolSettings struct {
	provider string
	limit    int
	idle     time.Duration

	// What the workers of the pool are started with.
	scratch string
	log     logSettings
	output  *os.File
	env     []string
}

func (p *poolSettings) register(cmd *cobra.Command, provider string, idle time.Duration) {
	flags := cmd.Flags()
	flags.StringVar(&p.provider, "pool", provider, "what runs workers: process (child processes of this one) or none (whoever attaches)")
	flags.IntVar(&p.limit, "pool-limit", 0, "most workers of the pool (0: half as many as processors)")
	flags.DurationVar(&p.idle, "pool-idle", idle, "how long a worker of the pool waits for work before it leaves")
}

func (p *poolSettings) check() error {
	switch {
	case p.provider != poolProcess && p.provider != poolNone:
		return cli.Usagef("pool: %q is neither %s nor %s", p.provider, poolProcess, poolNone)
	case p.provider == poolNone:
		return nil
	case p.limit < 0:
		return cli.Usagef("pool-limit: %d is negative", p.limit)
	case p.idle < 0:
		return cli.Usagef("pool-idle: %s is negative", p.idle)
	}
	if _, err := ffmpeg.Find(); err != nil {
		return errNoFFmpeg
	}
	if p.limit == 0 {
		p.limit = max(1, runtime.NumCPU()/2)
	}

	return nil
}

// inherit passes on what workers need of our surroundings: where to find
// FFmpeg and a temporary folder, how to log. They read hostile input, so they
// get nothing else.
func (p *poolSettings) inherit(program *cli.Program) {
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH"} {
		if value := program.Env(name); value != "" {
			p.env = append(p.env, name+"="+value)
		}
	}
	p.env = append(p.env, cli.EnvName("log-level")+"="+p.log.level, cli.EnvName("log-format")+"="+p.log.format)
	if p.scratch != "" {
		p.env = append(p.env, cli.EnvName("scratch")+"="+p.scratch)
	}
	if file, ok := program.Stderr.(*os.File); ok {
		p.output = file
	}
}

// machines is the pool of child processes.
type machines struct {
	provider *process.Provider
	scaler   *autoscale.Reconciler
}

func newMachines(p *poolSettings, serverURL, token string, store autoscale.Store, leader *sweep.Sweeper,
	log *slog.Logger,
) (*machines, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	env := append([]string{cli.EnvName("server") + "=" + serverURL}, p.env...)
	if token != "" {
		env = append(env, workerTokenEnv+"="+token)
	}
	provider, err := process.New(process.Config{
		Command: []string{self, "worker"}, Env: env, Output: p.output, StopTimeout: workerStopTimeout, Log: log,
	})
	if err != nil {
		return nil, err
	}
	scaler := autoscale.New(autoscale.Config{
		Limit: p.limit,
		Env: func(machineID string) map[string]string {
			return map[string]string{cli.EnvName("machine-id"): machineID}
		},
	}, autoscale.Deps{
		Store: store, Provider: provider, Leader: leader.Leader, Elected: leader.Elected(), Log: log,
	})

	return &machines{provider: provider, scaler: scaler}, nil
}

// kill ends all workers at once.
func (m *machines) kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	instances, err := m.provider.List(ctx)
	errs := []error{err}
	for _, instance := range instances {
		errs = append(errs, m.provider.Destroy(ctx, instance.ProviderID))
	}

	return errors.Join(errs...)
}
