package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tcoder-dev/tcoder/internal/poolsim"
)

// poolSeeds are how many random days a bar is held to: the worst counts.
const poolSeeds = 5

// pool simulates the autoscaler in fake time: what it makes of bursts, days and
// long files, and what other policies would. That is exact, so how busy the
// machine is doesn't matter. What is left needs real time and a real Redis: how
// soon a machine is asked for, and what a pool costs that has nothing to do.
func pool(ctx context.Context, s setting) ([]Result, error) {
	parts := []struct {
		name  string
		run   func(context.Context) ([]Result, error)
		asked bool // only when it is asked for
	}{
		{"burst", poolBurst, false},
		{"traces", poolTraces, false},
		{"ladder", poolLadder, false},
		{"start", func(ctx context.Context) ([]Result, error) { return poolStart(ctx, s) }, false},
		{"idle", func(ctx context.Context) ([]Result, error) { return poolIdle(ctx, s) }, true},
		{"sweep", poolSweep, true},
	}
	var results []Result
	known := false
	for _, part := range parts {
		if s.part != part.name && (s.part != "" || part.asked) {
			continue
		}
		known = true
		got, err := part.run(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		for i := range got {
			got[i].Name = "pool/" + got[i].Name
		}
		results = append(results, got...)
	}
	if !known {
		return nil, errors.New("no part is called " + s.part)
	}

	return results, nil
}

// play simulates a trace by its name.
func play(ctx context.Context, name string, seed uint64, policy poolsim.Policy, edit func(*poolsim.Config)) (poolsim.Outcome, poolsim.Config, error) {
	trace, known := poolsim.TraceOf(name, seed)
	if !known {
		return poolsim.Outcome{}, poolsim.Config{}, errors.New("no trace is called " + name)
	}
	cfg := poolsim.Config{Trace: trace, Policy: policy, Cloud: poolsim.Fly(), Seed: seed}
	if edit != nil {
		edit(&cfg)
	}
	outcome, err := poolsim.Run(ctx, cfg)
	if err != nil {
		return poolsim.Outcome{}, cfg, fmt.Errorf("simulate %s: %w", name, err)
	}

	return outcome, cfg, nil
}

// poolBurst holds 200 jobs of 60 s against an empty pool of at most 20 machines
// to what no policy can do better than.
func poolBurst(ctx context.Context) ([]Result, error) {
	var overhead, wait, least, ratio, used float64
	left := 0
	for seed := range uint64(poolSeeds) {
		o, cfg, err := play(ctx, "burst", seed, poolsim.DefaultPolicy(), nil)
		if err != nil {
			return nil, err
		}
		bound := cfg.LeastWait(0.95).Seconds()
		overhead, used = max(overhead, o.Overhead()), max(used, (o.Used-o.Tail).Seconds())
		if r := o.Wait.P95.Seconds() / bound; r > ratio {
			ratio, wait, least = r, o.Wait.P95.Seconds(), bound
		}
		left = max(left, o.Running)
	}

	return []Result{
		plain("burst/machine-seconds", used, "s", "12,000 s of work, idle tails apart"),
		atMost(1.15, plain("burst/overhead", overhead, "ratio", "the work")),
		plain("burst/wait-p95", wait, "s", ""),
		plain("burst/wait-p95-bound", least, "s", "no policy waits less"),
		atMost(1.3, plain("burst/wait-ratio", ratio, "ratio", "that bound")),
		atMost(0, plain("burst/running-an-hour-later", float64(left), "machines", "")),
	}, nil
}

// poolTraces tells what the default policy makes of each trace.
func poolTraces(ctx context.Context) ([]Result, error) {
	var results []Result
	for _, name := range []string{"burst-1000", "steady", "sparse", "clips", "daily", "long"} {
		o, _, err := play(ctx, name, 1, poolsim.DefaultPolicy(), nil)
		if err != nil {
			return nil, err
		}
		bad, _, err := play(ctx, name, 1, poolsim.DefaultPolicy(), func(cfg *poolsim.Config) { cfg.Cloud.Faults = poolsim.UsualFaults() })
		if err != nil {
			return nil, err
		}
		results = append(results,
			plain(name+"/machine-seconds", o.Used.Seconds(), "s", fmt.Sprintf("%.0f s of work", o.Needed.Seconds())),
			plain(name+"/overhead", o.Overhead(), "ratio", "the work, idle tails apart"),
			plain(name+"/wait-p50", o.Wait.P50.Seconds(), "s", ""),
			plain(name+"/wait-p95", o.Wait.P95.Seconds(), "s", ""),
			plain(name+"/cost", o.Cost, "US$", o.Price),
			plain(name+"/bad-day/overhead", bad.Overhead(), "ratio", "the work, idle tails apart"),
			plain(name+"/bad-day/wait-p95", bad.Wait.P95.Seconds(), "s", ""),
			atMost(0, plain(name+"/running-an-hour-later", float64(max(o.Running, bad.Running)), "machines", "")),
		)
	}

	return results, nil
}

// ladderMachines have four cores each.
const ladderMachines = 64

// poolLadder splits one 1080p file over 64 machines: those that have stopped
// and are kept, and for an hour of video also with none there.
func poolLadder(ctx context.Context) ([]Result, error) {
	published := map[time.Duration]string{
		time.Minute:      "Mux: 2.0 s for 0 to 1 min",
		5 * time.Minute:  "Mux: 3.3 s for 1 to 5 min",
		20 * time.Minute: "Mux: 9.0 s for 5 to 20 min",
		time.Hour:        "Mux: 46 s for 20 to 60 min; Bunny: none",
	}
	policy := poolsim.DefaultPolicy()
	policy.Settings.Limit, policy.Settings.KeepStopped = ladderMachines, ladderMachines
	run := func(length time.Duration, stopped int, silent bool) (poolsim.Outcome, error) {
		trace := poolsim.Ladder(length, 1)
		if silent {
			trace = trace.WithoutAudio()
		}

		return poolsim.Run(ctx, poolsim.Config{Trace: trace, Policy: policy, Cloud: poolsim.Fly(), Seed: 1, Stopped: stopped})
	}
	var results []Result
	for _, length := range []time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute, time.Hour} {
		o, err := run(length, ladderMachines, false)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("ladder-%.0fmin", length.Minutes())
		results = append(results,
			plain(name+"/wall", o.Wall.Seconds(), "s", published[length]),
			plain(name+"/machine-seconds", (o.Used-o.Tail).Seconds(), "s", fmt.Sprintf("%.0f s of work, idle tails apart", o.Needed.Seconds())))
		if length < time.Hour {
			continue
		}
		silent, err := run(length, ladderMachines, true)
		if err != nil {
			return nil, err
		}
		empty, err := run(length, 0, false)
		if err != nil {
			return nil, err
		}
		speedup := func(o poolsim.Outcome) float64 { return o.Needed.Seconds() / o.Wall.Seconds() }
		results = append(results,
			atLeast(0.8, plain(name+"/efficiency", 1/o.Overhead(), "ratio", "machine time, idle tails apart")),
			plain(name+"/speedup", speedup(o), "ratio", "one machine; SVE: 2.3 to 9.3"),
			plain(name+"/cost", o.Cost, "US$", o.Price),
			plain(name+"/silent/wall", silent.Wall.Seconds(), "s", "without the sound, which one thread makes"),
			plain(name+"/silent/speedup-per-machine", speedup(silent)/ladderMachines, "ratio", "64 times one machine"),
			plain(name+"/from-nothing/wall", empty.Wall.Seconds(), "s", "64 creations at one a second"),
			plain(name+"/from-nothing/efficiency", 1/empty.Overhead(), "ratio", "machine time, idle tails apart"),
		)
	}

	return results, nil
}

// poolSweep tells what other policies would do.
func poolSweep(ctx context.Context) ([]Result, error) {
	var results []Result
	try := func(label string, edit func(*poolsim.Policy)) error {
		policy := poolsim.DefaultPolicy()
		edit(&policy)
		for _, name := range []string{"steady", "sparse", "clips", "daily", "long"} {
			o, _, err := play(ctx, name, 1, policy, nil)
			if err != nil {
				return err
			}
			at := "sweep/" + label + "/" + name
			results = append(results,
				plain(at+"/used", o.Used.Seconds()/o.Needed.Seconds(), "ratio", "the work"),
				plain(at+"/wait-p50", o.Wait.P50.Seconds(), "s", ""),
				plain(at+"/wait-p95", o.Wait.P95.Seconds(), "s", ""),
				plain(at+"/cost", o.Cost, "US$", o.Price))
		}

		return nil
	}
	for _, idle := range []time.Duration{15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute} {
		if err := try("idle="+idle.String(), func(p *poolsim.Policy) { p.Settings.Idle = idle }); err != nil {
			return nil, err
		}
	}
	for _, kept := range []int{0, 3, 10} {
		if err := try(fmt.Sprintf("kept=%d", kept), func(p *poolsim.Policy) { p.Settings.KeepStopped = kept }); err != nil {
			return nil, err
		}
	}
	for _, patience := range []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second} {
		if err := try("patience="+patience.String(), func(p *poolsim.Policy) { p.Patience = patience }); err != nil {
			return nil, err
		}
	}
	for _, creations := range []int{1, 10} {
		if err := try(fmt.Sprintf("creations=%d", creations), func(p *poolsim.Policy) { p.CreationsAtOnce = creations }); err != nil {
			return nil, err
		}
	}

	return results, nil
}
