// Package simulate is `tcoder sim`: what a pool would do and cost under a
// policy, before anybody pays for it.
package simulate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/poolsim"
)

// sim is the command with its settings.
type sim struct {
	*cli.Program

	policy  poolsim.Policy
	price   float64
	seed    uint64
	stopped int
	faults  bool
	svg     string
	json    bool
}

// Command is `tcoder sim`.
func Command(program *cli.Program) *cobra.Command {
	s := &sim{Program: program, policy: poolsim.DefaultPolicy()}
	cmd := &cobra.Command{
		Use:   "sim [TRACE...]",
		Short: "Simulate what a pool on Fly would do and cost",
		Long: `Simulate in fake time what a pool on Fly would do and cost: the real autoscaler
against machines with the start latencies, limits of calls and (with --faults)
failures of Fly. Nothing is contacted. The same seed gives the same outcome.

` + traces() + `
Without one, all are simulated. BOUND is the least 95th percentile of waits that
any policy can have; OVERHEAD is the machine time, the idle times before a stop
apart, over what the tasks take.`,
		Args:      cobra.OnlyValidArgs,
		ValidArgs: poolsim.Names(),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := program.Interruptible(cmd.Context())
			defer stop()

			return s.run(ctx, args)
		},
	}
	flags := cmd.Flags()
	set := &s.policy.Settings
	flags.IntVar(&set.Limit, "limit", set.Limit, "most machines")
	flags.IntVar(&set.MinWarm, "warm", set.MinWarm, "machines that are kept running without work")
	flags.DurationVar(&set.Idle, "idle", set.Idle, "how long a machine waits for work before it stops")
	flags.IntVar(&set.KeepStopped, "keep-stopped", set.KeepStopped, "stopped machines that are kept")
	flags.IntVar(&s.stopped, "stopped", 0, "stopped machines that are there in the beginning")
	flags.IntVar(&s.policy.Slots, "slots", s.policy.Slots, "tasks that a machine runs at a time")
	flags.DurationVar(&s.policy.Patience, "patience", 0, "how long work waits for busy machines before more are made (0: twice as long as they take to come)")
	flags.IntVar(&s.policy.CreationsAtOnce, "creations", 3, "machines that are created between two looks")
	flags.BoolVar(&s.faults, "faults", false, "let calls fail, starts hang and machines die as on a bad day")
	flags.Float64Var(&s.price, "price", poolsim.Fly().Price.PerSecond, "US dollars that a machine costs a second ("+poolsim.Fly().Price.AsOf+")")
	flags.Uint64Var(&s.seed, "seed", 1, "chooses when jobs come, how long starts take and what fails")
	flags.StringVar(&s.svg, "svg", "", "folder to write a chart of each trace to")
	flags.BoolVar(&s.json, "json", false, "print JSON, with the pool over time")

	return cmd
}

// traces lists them for the help.
func traces() string {
	var list strings.Builder
	list.WriteString("The traces:\n")
	for _, name := range poolsim.Names() {
		trace, _ := poolsim.TraceOf(name, 1)
		fmt.Fprintf(&list, "  %-11s %s\n", name, trace.About)
	}

	return list.String()
}

// result is an outcome with what it is held to.
type result struct {
	poolsim.Outcome

	bound time.Duration
}

func (s *sim) run(ctx context.Context, names []string) error {
	if err := s.policy.Settings.Check(); err != nil {
		return &cli.UsageError{Err: err}
	}
	switch {
	case s.policy.Settings.Limit < 1, s.policy.Slots < 1:
		return cli.Usagef("there must be a machine and a slot at least")
	case s.stopped < 0, s.stopped > s.policy.Settings.Limit:
		return cli.Usagef("stopped: %d is not in 0 to %d", s.stopped, s.policy.Settings.Limit)
	case len(names) == 0:
		names = poolsim.Names()
	}
	cloud := poolsim.Fly()
	if s.price != cloud.Price.PerSecond {
		cloud.Price.PerSecond, cloud.Price.AsOf = s.price, "as given"
	}
	if s.faults {
		cloud.Faults = poolsim.UsualFaults()
	}
	var results []result
	for _, name := range names {
		trace, _ := poolsim.TraceOf(name, s.seed)
		cfg := poolsim.Config{Trace: trace, Policy: s.policy, Cloud: cloud, Seed: s.seed, Stopped: s.stopped}
		outcome, err := poolsim.Run(ctx, cfg)
		if err != nil {
			return fmt.Errorf("simulate %s: %w", name, err)
		}
		if err := s.draw(outcome); err != nil {
			return err
		}
		results = append(results, result{outcome, cfg.LeastWait(0.95)})
	}
	if s.json {
		return s.PrintJSON(documents(results))
	}

	return s.table(results)
}

// draw writes the chart of a trace.
func (s *sim) draw(o poolsim.Outcome) error {
	if s.svg == "" {
		return nil
	}
	if err := os.MkdirAll(s.svg, 0o750); err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.svg, o.Trace+".svg"), o.SVG(), 0o600); err != nil {
		return fmt.Errorf("chart: %w", err)
	}

	return nil
}

func (s *sim) table(results []result) error {
	rows := make([][]any, 0, len(results))
	for _, r := range results {
		bound := "-"
		if r.bound > 0 {
			bound = short(r.bound)
		}
		rows = append(rows, []any{
			r.Trace, r.Jobs, short(r.Wait.P50), short(r.Wait.P95), short(r.Wait.Max), bound, short(r.Took.P95),
			seconds(r.Needed), seconds(r.Used), seconds(r.Tail), fmt.Sprintf("%.2f", r.Overhead()), r.Most, r.Starts, r.Running,
			fmt.Sprintf("%.2f", r.Cost),
		})
	}
	header := "TRACE\tJOBS\tWAIT P50\tP95\tMAX\tBOUND\tTOOK P95\tNEEDED\tUSED\tIDLE TAIL\tOVERHEAD\tMOST\tSTARTS\tLEFT\tUS$"
	if err := s.PrintTable(header, rows); err != nil {
		return err
	}
	prices := make([]string, 0, 1)
	for _, r := range results {
		if !slices.Contains(prices, r.Price) {
			prices = append(prices, r.Price)
		}
	}
	s.Printf("NEEDED, USED and IDLE TAIL are seconds of machines, LEFT those that run an hour later. Price: %s.\n", strings.Join(prices, ", "))

	return nil
}

// short is a duration with as many digits as mean something.
func short(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}

	return d.Round(time.Second).String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()) }
