package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/oklog/ulid/v2"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	claimFew     = 1_000
	claimMany    = 1_000_000
	claimsAtOnce = 200 // in a round; then as many tasks wait again
	claimRounds  = 40
	fillers      = 256
)

// queue is a store with so many tasks that wait, on a Redis of its own.
type queue struct {
	redis  *redisServer
	store  pipeline.Store
	close  func() error
	caller caller
	depth  int
	cost   []float64 // of a claim in each round, in µs of the server
}

func openQueue(ctx context.Context, s setting, depth int) (_ *queue, err error) {
	q := &queue{depth: depth, close: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, q.stop())
		}
	}()
	if q.redis, err = startRedis(ctx, s, never); err != nil {
		return nil, err
	}
	if q.store, q.close, err = openStore(ctx, q.redis.url()); err != nil {
		return nil, err
	}
	if err := q.fill(ctx, depth); err != nil {
		return nil, err
	}
	callers, err := attachCallers(ctx, q.store, 1)
	if err != nil {
		return nil, err
	}
	q.caller = callers[0]

	return q, nil
}

// fill creates jobs.
func (q *queue) fill(ctx context.Context, n int) error {
	var begun atomic.Int64

	return atOnce(min(n, fillers), func(i int) error {
		for begun.Add(1) <= int64(n) {
			if _, err := (caller{project: projectName(i)}).submit(ctx, q.store, false); err != nil {
				return err
			}
		}

		return nil
	})
}

// round claims tasks one at a time, notes what a claim costs the server, and
// creates as many again.
func (q *queue) round(ctx context.Context) error {
	stats, err := q.store.PoolStats(ctx)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if stats.ReadyTasks != int64(q.depth) {
		return fmt.Errorf("invalid: %d tasks wait, not %d", stats.ReadyTasks, q.depth)
	}
	if _, err := q.redis.conn.do("CONFIG", "RESETSTAT"); err != nil {
		return err
	}
	for range claimsAtOnce {
		got, err := q.store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: ulid.Make().String(), WorkerID: q.caller.worker, Session: q.caller.session,
			Max: 1, Lease: benchLease, RunningLimit: runningLimit,
		})
		if err != nil || len(got.Leases) != 1 {
			return fmt.Errorf("invalid: a claim got %d tasks: %w", len(got.Leases), err)
		}
	}
	calls, cost, err := q.redis.scriptCost()
	if err != nil {
		return err
	}
	if calls != claimsAtOnce {
		return fmt.Errorf("invalid: %d calls of scripts for %d claims", calls, claimsAtOnce)
	}
	q.cost = append(q.cost, cost)

	return q.fill(ctx, claimsAtOnce)
}

func (q *queue) stop() error {
	err := q.close()
	if q.redis != nil {
		err = errors.Join(err, q.redis.stop())
	}

	return err
}

// scriptCost is how many scripts the server ran since its statistics were
// reset, and what one took, in µs.
func (r *redisServer) scriptCost() (calls int, cost float64, err error) {
	info, err := r.info("commandstats")
	if err != nil {
		return 0, 0, err
	}
	for field := range strings.SplitSeq(info["cmdstat_evalsha"], ",") {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "calls":
			calls, err = strconv.Atoi(value)
		case "usec_per_call":
			cost, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("redis: %s: %w", name, err)
		}
	}

	return calls, cost, nil
}

// claim compares the cost of a claim where few and where very many tasks wait.
func claim(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	few, err := openQueue(ctx, s, claimFew)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, few.stop()) }()
	many, err := openQueue(ctx, s, claimMany)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, many.stop()) }()
	if err := q.run("claim", func() error {
		few.cost, many.cost = nil, nil
		for range claimRounds {
			if err := errors.Join(few.round(ctx), many.round(ctx)); err != nil {
				return err
			}
		}

		return nil
	}); err != nil {
		return nil, err
	}
	ratios := make([]float64, claimRounds)
	for i := range ratios {
		ratios[i] = many.cost[i] / few.cost[i]
	}

	return []Result{
		plain("claim/1000", median(few.cost), "µs", "of the server's time, no append-only file"),
		plain("claim/1000000", median(many.cost), "µs", "of the server's time, no append-only file"),
		atMost(1.1, plain("claim/1000000/1000", median(ratios), "ratio", "a claim with 1,000 waiting tasks")),
	}, nil
}
