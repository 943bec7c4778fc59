package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

func poolCommand(program *cli.Program) *cobra.Command {
	pool := readCommand(program, "pool", "Show the pool: its limit, what runs and what waits", (*base).showPool)
	var b *base
	drain := &cobra.Command{
		Use: "drain MACHINE|WORKER", Short: "Make the workers of a machine, or one, finish what ends soon, hand back the rest and exit",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := b.connect()
			if err != nil {
				return err
			}
			ctx, stop := b.Interruptible(cmd.Context())
			defer stop()

			return b.drain(ctx, client, args[0])
		},
	}
	b = newBase(program, drain)
	pool.AddCommand(
		readCommand(program, "status", "Show the pool, its machines and workers; on a terminal, as they change", (*base).showStatus),
		readCommand(program, "workers", "List the workers", (*base).listWorkers),
		readCommand(program, "machines", "List the machines", (*base).listMachines),
		drain, setCommand(program),
	)

	return pool
}

func presetsCommand(program *cli.Program) *cobra.Command {
	return readCommand(program, "presets", "List the presets and what they set", (*base).listPresets)
}

// readCommand makes a command that shows something of the server.
func readCommand(program *cli.Program, use, short string,
	show func(*base, context.Context, *tcoder.Client) error,
) *cobra.Command {
	var b *base
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := b.connect()
			if err != nil {
				return err
			}
			ctx, stop := b.Interruptible(cmd.Context())
			defer stop()

			return show(b, ctx, client)
		},
	}
	b = newBase(program, cmd)

	return cmd
}

func (b *base) showPool(ctx context.Context, client *tcoder.Client) error {
	pool, err := client.Pool(ctx)
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(pool)
	}
	b.printPool(pool)

	return nil
}

func (b *base) printPool(pool *tcoderv1.GetPoolResponse) {
	b.Printf("provider  %s\n", pool.GetProvider())
	b.Printf("machines  %d of %d: %d run, %d start, %d stopped; the work asks for %d\n", pool.GetMachines(), pool.GetMachineLimit(),
		pool.GetRunningMachines(), pool.GetStartingMachines(), pool.GetStoppedMachines(), pool.GetDesiredMachines())
	b.Printf("workers   %d\n", pool.GetWorkers())
	b.Printf("slots     %d of %d busy\n", pool.GetBusySlots(), pool.GetSlots())
	b.Printf("tasks     %d ready, %d leased, %d delayed\n",
		pool.GetReadyTasks(), pool.GetLeasedTasks(), pool.GetDelayedTasks())
	if n := pool.GetLimitedTasks(); n > 0 {
		b.Printf("limited   %s of projects that run as many as they may\n", count(int(n), "task"))
	}
	if pool.GetOldestReady() != nil {
		b.Printf("oldest    %s\n", formatDuration(pool.GetOldestReady()))
	}
	if pool.GetWaitingWork() != nil {
		b.Printf("work      about %s of one slot waits\n", formatDuration(pool.GetWaitingWork()))
	}
	if settings := pool.GetSettings(); settings != nil {
		b.Printf("settings  %s\n", settingsText(settings))
	}
	if pool.GetHoldReason() != "" {
		b.Printf("held      %s\n", pool.GetHoldReason())
	}
	for _, p := range pool.GetProblems() {
		b.Printf("problem   %s\n", problemText(p))
	}
}

func problemText(p *tcoderv1.PoolProblem) string {
	text := name(p.GetKind(), "POOL_PROBLEM_KIND_") + ": " + p.GetMessage()
	if p.GetRegion() != "" {
		text += " In " + p.GetRegion() + "."
	}
	text += fmt.Sprintf(" Since %s, %d times", formatAge(p.GetSince()), p.GetTimes())
	if p.GetNextTryAt() != nil {
		text += ", next try " + formatTime(p.GetNextTryAt())
	}

	return text
}

func (b *base) listWorkers(ctx context.Context, client *tcoder.Client) error {
	workers, err := client.Workers(ctx)
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(&tcoderv1.ListWorkersResponse{Workers: workers})
	}

	return b.printWorkers(workers)
}

func (b *base) printWorkers(workers []*tcoderv1.Worker) error {
	var rows [][]any
	for _, w := range workers {
		rows = append(rows, []any{
			w.GetId(), name(w.GetState(), "WORKER_STATE_"), fmt.Sprintf("%d/%d", len(w.GetHeld()), w.GetSlots()),
			orDash(w.GetMachineId()), formatAge(w.GetAttachedAt()), formatAge(w.GetLastSeenAt()), orDash(w.GetVersion()),
		})
	}

	return b.PrintTable("WORKER\tSTATE\tTASKS\tMACHINE\tAGE\tSEEN\tVERSION", rows)
}

func (b *base) listMachines(ctx context.Context, client *tcoder.Client) error {
	machines, err := client.Machines(ctx)
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(&tcoderv1.ListMachinesResponse{Machines: machines})
	}

	return b.printMachines(machines)
}

func (b *base) printMachines(machines []*tcoderv1.Machine) error {
	var rows [][]any
	for _, m := range machines {
		failure := "-"
		if m.GetFailure() != nil {
			failure = failureText(m.GetFailure())
		}
		rows = append(rows, []any{
			m.GetId(), name(m.GetState(), "MACHINE_STATE_"), m.GetProvider(), orDash(m.GetProviderId()), orDash(m.GetRegion()),
			formatAge(m.GetCreatedAt()), failure,
		})
	}

	return b.PrintTable("MACHINE\tSTATE\tPROVIDER\tID THERE\tREGION\tAGE\tFAILURE", rows)
}

// drain drains a machine, or else the worker of that id.
func (b *base) drain(ctx context.Context, client *tcoder.Client, id string) error {
	machine, err := client.DrainMachine(ctx, id)
	if err == nil {
		if b.json {
			return b.PrintMessage(machine)
		}
		b.Printf("%s %s\n", machine.GetId(), name(machine.GetState(), "MACHINE_STATE_"))

		return nil
	}
	if tcoder.ReasonOf(err) != tcoderv1.ErrorReason_ERROR_REASON_MACHINE_NOT_FOUND {
		return err
	}
	worker, err := client.DrainWorker(ctx, id)
	if e, ok := errors.AsType[*tcoder.Error](err); ok && e.Reason == tcoderv1.ErrorReason_ERROR_REASON_WORKER_NOT_FOUND {
		neither := *e
		neither.Message, neither.Remedy = "there is no machine and no worker "+id, "tcoder pool status lists them"

		return &neither
	}
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(worker)
	}
	b.Printf("%s %s\n", worker.GetId(), name(worker.GetState(), "WORKER_STATE_"))

	return nil
}

func (b *base) listPresets(ctx context.Context, client *tcoder.Client) error {
	presets, err := client.Presets(ctx)
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(&tcoderv1.ListPresetsResponse{Presets: presets})
	}
	for _, preset := range presets {
		b.Printf("%s\n  %s\n", preset.GetName(), preset.GetDescription())
		for _, setting := range presetSettings(preset.GetSpec()) {
			b.Printf("    %s\n", setting)
		}
	}

	return nil
}
