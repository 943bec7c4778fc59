package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// scheduler measures the queue: the store alone, the control plane around it,
// and what both cost, beside asynq and the limits of the same Redis.
func scheduler(ctx context.Context, s setting) (_ []Result, err error) {
	parts := []struct {
		name string
		run  func(context.Context, setting, *quiet) ([]Result, error)
	}{
		{"cycle", cycle},
		{"memory", memory},
		{"latency", latency},
		{"claim", claim},
		{"commands", commands},
		{"attached", attached},
		{"idle", nil},
	}
	fmt.Fprintln(os.Stderr, "scheduler:", redisSettings)
	if s.part == "" || s.part == "idle" {
		idle, failed := startIdling(ctx, s)
		if failed != nil {
			return nil, fmt.Errorf("idle: %w", failed)
		}
		defer func() { err = errors.Join(err, idle.stop()) }()
		parts[len(parts)-1].run = idle.read
	}
	var results []Result
	known := false
	for _, part := range parts {
		if s.part != "" && s.part != part.name {
			continue
		}
		known = true
		start := time.Now()
		q := newQuiet(s)
		got, err := part.run(ctx, s, q)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		for i := range got {
			got[i].Name = "scheduler/" + got[i].Name
			got[i].Noisy = q.noisy
		}
		results = append(results, got...)
		fmt.Fprintf(os.Stderr, "scheduler: %s took %.0f s\n", part.name, time.Since(start).Seconds())
	}
	if !known {
		return nil, errors.New("no part is called " + s.part)
	}

	return results, nil
}

// atLeast and atMost are figures with a bar.
func atLeast(bar float64, r Result) Result {
	r.Bar, r.OK = "≥ "+figure(bar), r.Value >= bar

	return r
}

func atMost(bar float64, r Result) Result {
	r.Bar, r.OK = "≤ "+figure(bar), r.Value <= bar

	return r
}

// plain is a figure that is told and not judged.
func plain(name string, value float64, unit, peer string) Result {
	return Result{Name: name, Value: value, Unit: unit, Peer: peer, OK: true}
}
