package main

import (
	"context"
	"errors"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker"
)

const (
	idleReplicas = 2
	idleWorkers  = 2 // of each replica
	// idleSettle is how long a cell has to become idle.
	idleSettle = 5 * time.Second
	// idleFor is a multiple of what comes by the clock: the sweeper's tick (15 s)
	// and the question whether a silent subscription lives (2 min).
	idleFor = 2 * time.Minute
	// safetyCalls is what the window is too short for: every 5 minutes a replica
	// looks at its workers, and for a task that nobody told it of.
	safetyCalls = 2 * 12
)

// idling is a cell with nothing to do, watched while other parts are measured.
type idling struct {
	cell  *cell
	crews []*crew
	since time.Time
}

func startIdling(ctx context.Context, s setting) (_ *idling, err error) {
	i := &idling{}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.stop())
		}
	}()
	if i.cell, err = startCell(ctx, s, idleReplicas, true, "--pool", "none"); err != nil {
		return nil, err
	}
	for _, p := range i.cell.planes {
		workers, err := startCrew(ctx, s, p.url, idleWorkers, 2, 0, func(context.Context, worker.Attempt) (*tcoderv1.TaskReport, error) { return refuse() })
		if err != nil {
			return nil, err
		}
		i.crews = append(i.crews, workers)
	}
	store, closeStore, err := openStore(ctx, i.cell.redis.url())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(attachedTo(ctx, store, idleReplicas*idleWorkers), closeStore()); err != nil {
		return nil, err
	}
	wait(ctx, idleSettle)
	i.since = i.cell.startCount()

	return i, nil
}

// read waits for the end of the window and scales what came in it to an hour.
func (i *idling) read(ctx context.Context, _ setting, _ *quiet) ([]Result, error) {
	wait(ctx, time.Until(i.since.Add(idleFor)))

	return []Result{atMost(300, plain("commands/idle-hour", i.cell.commandsPerHour(i.since)+safetyCalls, "commands",
		"on the wire, of the busier of two replicas with two workers each; two minutes or more, scaled, and 24 for what comes every 5 minutes"))}, nil
}

func (i *idling) stop() error {
	var errs []error
	for _, workers := range i.crews {
		errs = append(errs, workers.stop())
	}
	if i.cell != nil {
		errs = append(errs, i.cell.stop())
	}

	return errors.Join(errs...)
}
