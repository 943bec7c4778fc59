package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// scheduler measures the queue: the store alone, the control plane around it,
// and what both cost, beside asynq and the limits of the same Redis.
func scheduler(ctx context.Context, s setting) (_ []Result, err error) {
	parts := []part{
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

	return measureParts(ctx, s, "scheduler", parts)
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
