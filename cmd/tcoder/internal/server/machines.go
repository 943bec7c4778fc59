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
	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/fly"
	"github.com/tcoder-dev/tcoder/internal/machine/process"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/autoscale"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/sweep"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// The kinds of pool.
const (
	poolProcess = "process"
	poolFly     = "fly"
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
	warm     int
	idle     time.Duration
	start    time.Duration
	fly      *flySettings // nil where there is no choice of it

	// What the workers of the pool are started with.
	scratch string
	sandbox Sandbox
	log     logSettings
	output  *os.File
	env     []string
}

func (p *poolSettings) register(cmd *cobra.Command, provider string, idle time.Duration) {
	flags := cmd.Flags()
	kinds, limit := "process (child processes of this one)", "half as many as processors"
	if p.fly != nil {
		kinds, limit = kinds+", fly (machines of Fly.io)", limit+", or 10 on Fly"
		p.fly.register(cmd)
	}
	flags.StringVar(&p.provider, "pool", provider, "what runs workers: "+kinds+" or none (whoever attaches)")
	flags.IntVar(&p.limit, "pool-limit", 0, "most workers of the pool (0: "+limit+")")
	flags.IntVar(&p.warm, "pool-min-warm", 0, "workers of the pool that are kept running without work")
	flags.DurationVar(&p.idle, "pool-idle", idle, "how long a worker of the pool waits for work before it leaves")
	flags.DurationVar(&p.start, "pool-start-timeout", autoscale.DefaultStartTimeout, "how long a worker of the pool may take to attach, or be silent, before its machine is replaced")
	p.sandbox.Register(cmd)
}

func (p *poolSettings) check() error {
	switch {
	case p.provider == poolFly && p.fly == nil:
		return cli.Usagef("pool: machines of Fly can't reach a server on this computer; they are for 'tcoder serve'")
	case p.provider != poolProcess && p.provider != poolFly && p.provider != poolNone:
		return cli.Usagef("pool: %q is neither %s, %s nor %s", p.provider, poolProcess, poolFly, poolNone)
	case p.provider == poolNone:
		return nil
	case p.limit < 0:
		return cli.Usagef("pool-limit: %d is negative", p.limit)
	case p.warm < 0:
		return cli.Usagef("pool-min-warm: %d is negative", p.warm)
	case p.idle < 0:
		return cli.Usagef("pool-idle: %s is negative", p.idle)
	case p.start < time.Second:
		return cli.Usagef("pool-start-timeout: %s is less than 1s", p.start)
	case p.provider == poolFly:
		if p.limit == 0 {
			p.limit = defaultFlyLimit
		}

		return nil
	}
	if _, err := ffmpeg.Find(); err != nil {
		return errNoFFmpeg
	}
	if p.limit == 0 {
		p.limit = max(1, runtime.NumCPU()/2)
	}

	return nil
}

// inherit passes on what child processes need of our surroundings: where to
// find FFmpeg and a temporary folder. They read hostile input, so they
// get nothing else.
func (p *poolSettings) inherit(program *cli.Program) {
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH"} {
		if value := program.Env(name); value != "" {
			p.env = append(p.env, name+"="+value)
		}
	}
	if p.scratch != "" {
		p.env = append(p.env, cli.EnvName("scratch")+"="+p.scratch)
	}
	if file, ok := program.Stderr.(*os.File); ok {
		p.output = file
	}
}

// machines is the pool.
type machines struct {
	provider machine.Provider
	settings pipeline.PoolSettings // at the start
	children *process.Provider     // nil if machines live without us
	scaler   *autoscale.Reconciler
}

// poolStore is what a pool needs of the store.
type poolStore interface {
	autoscale.Store
	TakeTurn(ctx context.Context, name string, p pipeline.Pace, most time.Duration) (time.Duration, bool, error)
}

func newMachines(p *poolSettings, serverURL, token string, store poolStore, leader *sweep.Sweeper,
	log *slog.Logger,
) (*machines, error) {
	cfg := autoscale.Config{
		Settings:     pipeline.PoolSettings{Limit: p.limit, Idle: p.idle, MinWarm: p.warm},
		StartTimeout: p.start,
		Env: func(machineID string) map[string]string {
			env := map[string]string{cli.EnvName("machine-id"): machineID}
			if token != "" { // which itself gets onto no machine
				env[workerTokenEnv] = interceptor.MachineToken(token, machineID)
			}

			return env
		},
	}
	m := &machines{}
	var err error
	if p.provider == poolFly {
		p.fly.adjust(&cfg)
		m.provider, err = p.fly.provider(p.workerEnv(), turnsOf(store))
	} else {
		m.children, err = p.newChildren(serverURL, log)
		m.provider = m.children
	}
	if err != nil {
		return nil, err
	}
	m.settings = cfg.Settings
	m.scaler = autoscale.New(cfg, autoscale.Deps{
		Store: store, Provider: m.provider, Term: leader.Term, Elected: leader.Elected(), Log: log,
	})

	return m, nil
}

// checkSettings says which settings the provider can't do with.
func (m *machines) checkSettings(settings pipeline.PoolSettings) error {
	var fields []pipeline.FieldViolation
	check := func(field, name string, check func(string) error) {
		if name == "" {
			return
		}
		if err := check(name); err != nil {
			fields = append(fields, pipeline.FieldViolation{Field: field, Description: err.Error()})
		}
	}
	for i, region := range settings.Regions {
		check(fmt.Sprintf("regions.names[%d]", i), region, m.provider.CheckRegion)
	}
	check("encode_size", settings.EncodeSize, m.provider.CheckSize)
	check("light_size", settings.LightSize, m.provider.CheckSize)
	if len(fields) == 0 {
		return nil
	}

	return &pipeline.Error{Reason: pipeline.ReasonRequestInvalid, Message: "The pool can't have these settings.", Fields: fields}
}

// turnsOf are turns that all control planes of a store take together.
func turnsOf(store poolStore) fly.Turns {
	return func(ctx context.Context, name string, every time.Duration, burst int, most time.Duration) (time.Duration, bool, error) {
		return store.TakeTurn(ctx, "fly "+name, pipeline.Pace{Every: every, Burst: burst}, most)
	}
}

// workerEnv is what any worker of the pool is told.
func (p *poolSettings) workerEnv() map[string]string {
	env := p.sandbox.env()
	env[cli.EnvName("log-level")], env[cli.EnvName("log-format")] = p.log.level, p.log.format

	return env
}

func (p *poolSettings) newChildren(serverURL string, log *slog.Logger) (*process.Provider, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	env := append([]string{cli.EnvName("server") + "=" + serverURL}, p.env...)
	for name, value := range p.workerEnv() {
		env = append(env, name+"="+value)
	}

	return process.New(process.Config{
		Command: []string{self, "worker"}, Env: env, Output: p.output, StopTimeout: workerStopTimeout, Log: log,
	})
}

// kill ends all workers at once that wouldn't live without us.
func (m *machines) kill(ctx context.Context) error {
	if m.children == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	instances, err := m.children.List(ctx)
	errs := []error{err}
	for _, instance := range instances {
		errs = append(errs, m.children.Destroy(ctx, instance.ProviderID))
	}

	return errors.Join(errs...)
}
