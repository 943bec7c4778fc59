package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
)

// Commands are the commands that run tcoder.
func Commands(program *cli.Program, version string) []*cobra.Command {
	return []*cobra.Command{
		newUpCommand(program, version), newServeCommand(program, version),
		newWorkerCommand(program, version), newS3Command(program),
	}
}

// serve is the control plane alone, and what up builds on.
type serve struct {
	*cli.Program

	version string
	storage Storage
	control controlSettings
	pool    poolSettings
	logs    logSettings
	ballast []byte // see ballastBytes
}

func newServeCommand(program *cli.Program, version string) *cobra.Command {
	s := &serve{Program: program, version: version}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane on a Redis and an object store",
		Long: `Run the control plane on a Redis and an object store.

It keeps no state: run one or more of them on the same stores. Workers attach to
any of them with 'tcoder worker'. SIGTERM or Ctrl-C ends calls and streams in
order; a second one stops at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	s.control.register(cmd)
	s.storage.Register(cmd)
	s.pool.fly = &flySettings{}
	s.pool.register(cmd, poolNone, 30*time.Second)
	s.logs.register(cmd)

	return cmd
}

// read checks the settings that don't depend on the stores.
func (s *serve) read() (*slog.Logger, error) {
	log, err := s.logs.logger(s.Stderr)
	if err != nil {
		return nil, err
	}
	if err := s.control.read(s.Program); err != nil {
		return nil, err
	}
	s.storage.ReadSecrets(s.Program)
	s.pool.log = s.logs
	if s.pool.fly != nil {
		if err := s.pool.fly.read(s.Program); err != nil {
			return nil, err
		}
	}

	return log, s.pool.check()
}

func (s *serve) run(ctx context.Context) error {
	log, err := s.read()
	if err != nil {
		return err
	}
	if s.storage.RedisURL == "" || s.storage.Endpoint == "" {
		return cli.Usagef("serve needs --redis-url and --s3-endpoint; 'tcoder up' starts its own")
	}
	if err := s.storage.CheckS3(); err != nil {
		return err
	}
	s.pool.inherit(s.Program)
	gentle, hard, stop := s.Signals(ctx)
	defer stop()
	listener, err := s.control.bind(gentle)
	if err != nil {
		return err
	}
	parts := newStack(log)
	control, err := s.assemble(gentle, parts, listener, log, nil)
	if err == nil {
		err = parts.wait(gentle, nil)
	}

	return s.end(hard, err, parts, control.kill)
}

// Most of what lives in a large control plane is the connections of workers,
// which stay. So much of the heap may be garbage: less than Go lets be, and that
// saves memory. A small heap would be collected all the time: it counts as
// ballastBytes more than it is, of which no page is ever touched.
const (
	garbagePercent = 25
	ballastBytes   = 32 << 20
)

// assemble opens the stores, waits until they serve, and starts the control
// plane on a listener that it owns from then on. prepare may be nil.
func (s *serve) assemble(ctx context.Context, parts *stack, listener net.Listener, log *slog.Logger,
	prepare func(context.Context, *stores) error,
) (*control, error) {
	if s.Env("GOGC") == "" && s.Env("GOMEMLIMIT") == "" { // the ballast would count
		debug.SetGCPercent(garbagePercent)

		s.ballast = make([]byte, ballastBytes)
	}

	control, err := s.build(ctx, parts, listener, log, prepare)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}

	return control, control.start(ctx, parts)
}

func (s *serve) build(ctx context.Context, parts *stack, listener net.Listener, log *slog.Logger,
	prepare func(context.Context, *stores) error,
) (*control, error) {
	tracer, flush, err := newTracer(ctx, s.control.traceEndpoint, s.version)
	if err != nil {
		return nil, err
	}
	opened, err := s.storage.open()
	if err != nil {
		return nil, err
	}
	// Closed before the servers are stopped: an S3 server waits for idle
	// connections.
	parts.start(ctx, "connections", func(ctx context.Context) error {
		<-ctx.Done()

		return errors.Join(flush(context.WithoutCancel(ctx)), opened.close())
	})
	if err := opened.await(ctx); err != nil {
		return nil, err
	}
	if prepare != nil {
		if err := prepare(ctx, opened); err != nil {
			return nil, err
		}
	}

	return newControl(&s.control, &s.pool, opened, listener, tracer, log) //nolint:contextcheck // constructors open nothing, so they take no context
}

// end stops everything in order, or kills it once hard ends. The result is nil
// if a signal was the reason to end, and there was no second one.
func (s *serve) end(hard context.Context, cause error, parts *stack, kill func(context.Context) error) error {
	if errors.Is(cause, cli.ErrInterrupted) {
		cause = nil
	}
	err := parts.stop(hard)
	if hard.Err() != nil {
		err = errors.Join(err, kill(hard))
	}

	return errors.Join(cause, err)
}
