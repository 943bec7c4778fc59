package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/worker"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// workerTokenEnv is the variable of the workers' credential.
const workerTokenEnv = "TCODER_WORKER_TOKEN"

// ScratchUsage tells of the setting that doctor reads too.
const ScratchUsage = "folder for unfinished results (empty: one in memory, /dev/shm, for what fits there, else one in the temporary folder)"

// workerToken is their credential.
func workerToken() cli.Secret {
	return cli.Secret{Env: workerTokenEnv, Usage: "credential that workers send; needed if there are API keys"}
}

type workerCommand struct {
	*cli.Program

	log       logSettings
	sandbox   Sandbox
	version   string
	servers   []string
	transport string
	slots     int
	scratch   string
	grace     time.Duration
	machineID string
}

func newWorkerCommand(program *cli.Program, version string) *cobra.Command {
	w := &workerCommand{Program: program, version: version}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run a worker that takes tasks from a server",
		Long: `Run a worker that takes tasks from a server.

It needs FFmpeg and a way to the server and its object store, and no credential
of either but the worker token. SIGTERM or Ctrl-C makes it finish what ends soon
and hand back the rest; a second one stops it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&w.servers, "server", []string{defaultServerURL}, "addresses of the server's replicas, of which it takes the next when one fails")
	flags.StringVar(&w.transport, "transport", string(worker.TransportAuto), "how to talk to the server: stream, sync (calls, where a proxy cuts streams), or auto (calls where streams don't live)")
	flags.IntVar(&w.slots, "slots", 1, "tasks to run at a time, 1 to 64; they share the processors, one alone takes all")
	flags.StringVar(&w.scratch, "scratch", "", ScratchUsage)
	flags.DurationVar(&w.grace, "drain-grace", worker.DefaultDrainGrace, "time that tasks get to end by themselves on SIGTERM")
	flags.StringVar(&w.machineID, "machine-id", "", "machine of the pool that it runs on; set by the pool")
	w.sandbox.Register(cmd)
	w.log.register(cmd)
	cli.AddSecrets(cmd, workerToken())

	return cmd
}

func (w *workerCommand) run(ctx context.Context) error {
	log, err := w.log.logger(w.Stderr)
	if err != nil {
		return err
	}
	if w.slots < 1 || w.slots > 64 {
		return cli.Usagef("slots: %d is not in 1 to 64", w.slots)
	}
	for i, server := range w.servers {
		if !strings.Contains(server, "://") {
			w.servers[i] = "http://" + server
		}
	}
	grace := w.grace
	if grace == 0 {
		grace = -1 // none, in the worker's words
	}
	gentle, hard, stop := w.Signals(ctx)
	defer stop()
	keeper, err := w.sandbox.Open(gentle)
	if err != nil {
		return err
	}
	logSandbox(log, keeper)
	work, err := worker.New(worker.Config{
		Servers:    w.servers,
		Transport:  worker.Transport(w.transport),
		MachineID:  w.machineID,
		Token:      w.Env(workerTokenEnv),
		Slots:      w.slots,
		ScratchDir: w.scratch,
		Tools:      ffmpeg.Tools{Sandbox: keeper},
		Version:    w.version,
		DrainGrace: grace,
		Logger:     log,
	})
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	unwatch := context.AfterFunc(gentle, work.Drain)
	defer unwatch()
	if err := work.Run(hard); err != nil && !errors.Is(err, cli.ErrInterrupted) {
		return err
	}

	return context.Cause(hard)
}
