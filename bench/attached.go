package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/local"
	"github.com/tcoder-dev/tcoder/worker"
)

const (
	attachedWorkers = 5_000
	// attachPause spreads the workers' beginnings, and so their heartbeats.
	attachPause  = 2 * time.Millisecond
	attachWithin = 2 * time.Minute
	// steadyAfter lets each worker have a heartbeat before anything is measured.
	steadyAfter = 7 * time.Second
	steadyFor   = 15 * time.Second // three heartbeats of each
)

// beFleet is the other process of the benchmark of attached workers: so many
// of them, at a control plane, until it is told to stop.
func beFleet(ctx context.Context, s setting, server string) error {
	workers, err := startCrew(ctx, s, server, attachedWorkers, 1, attachPause,
		func(context.Context, worker.Attempt) (*tcoderv1.TaskReport, error) { return refuse() })
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	workers.kill()

	return nil
}

// attached tells what idle workers, a connection each, take of a control plane
// in memory, and what their heartbeats take of its processor time.
func attached(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	c, err := startCell(ctx, s, 1, false, "--pool", "none")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	pid := c.planes[0].PID()
	before, err := residentBytes(pid)
	if err != nil {
		return nil, err
	}
	fleet, err := startFleet(ctx, s, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fleet.stop()) }()
	wait(ctx, steadyAfter)
	var cores float64
	if err := q.run("attached", func() error {
		start := time.Now()
		began, err := treeCPU(pid)
		if err != nil {
			return err
		}
		wait(ctx, steadyFor)
		ended, err := treeCPU(pid)
		cores = (ended - began).Seconds() / time.Since(start).Seconds()

		return err
	}); err != nil {
		return nil, err
	}
	after, err := residentBytes(pid)
	if err != nil {
		return nil, err
	}
	if err := stillAttached(ctx, c); err != nil {
		return nil, err
	}

	return []Result{
		atMost(80*1024, plain("attached/memory", (after-before)/attachedWorkers, "bytes", "resident memory of `tcoder serve` for an idle worker of 5,000, one connection each")),
		atMost(0.25, plain("attached/heartbeats", cores, "cores", "of `tcoder serve`, with 5,000 workers that are heard every 5 s")),
	}, nil
}

// startFleet starts the workers in a process of their own, and returns once all are attached.
func startFleet(ctx context.Context, s setting, c *cell) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own program: %w", err)
	}
	store, closeStore, err := openStore(ctx, c.redis.url())
	if err != nil {
		return nil, err
	}
	fleet, err := startChild(ctx, filepath.Join(s.work, "fleet.log"), local.ProcessConfig{
		Name: "fleet", StartTimeout: attachWithin,
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, self, "-fleet", c.planes[0].url), nil
		},
		Check: func(ctx context.Context) error {
			wait(ctx, time.Second)
			workers, err := store.ListWorkers(ctx)
			if err == nil && len(workers) < attachedWorkers {
				err = errors.New(strconv.Itoa(len(workers)) + " workers are attached")
			}

			return err
		},
	})

	return fleet, errors.Join(err, closeStore())
}

// stillAttached fails if a worker was lost meanwhile.
func stillAttached(ctx context.Context, c *cell) error {
	store, closeStore, err := openStore(ctx, c.redis.url())
	if err != nil {
		return err
	}
	workers, err := store.ListWorkers(ctx)
	there := 0
	for _, w := range workers {
		if w.Attached {
			there++
		}
	}
	if err == nil && there != attachedWorkers {
		err = fmt.Errorf("invalid: %d of %d workers are attached at the end", there, attachedWorkers)
	}

	return errors.Join(err, closeStore())
}
