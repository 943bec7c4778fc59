package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

const (
	cycleFor   = 2500 * time.Millisecond // of a round, behind the warm-up
	cycleWarm  = 400 * time.Millisecond
	asynqTasks = 15_000
)

// throughput is what a contender did in a round.
type throughput struct {
	perSecond float64
	redisUS   float64 // processor time of Redis per job, in µs
	clientUS  float64 // the same of the client
}

// ownCPU is the processor time of this process in seconds.
func ownCPU() (float64, error) {
	used, err := usedCPU(syscall.RUSAGE_SELF)

	return used.Seconds(), err
}

// gauge reads what a round costs, on both sides of it.
type gauge struct {
	redis      *redisServer
	redisStart float64
	ownStart   float64
	start      time.Time
}

func newGauge(redis *redisServer) (gauge, error) {
	g := gauge{redis: redis}
	var err error
	if g.redisStart, err = redis.cpu(); err != nil {
		return g, err
	}
	if g.ownStart, err = ownCPU(); err != nil {
		return g, err
	}
	g.start = time.Now()

	return g, nil
}

// read returns the rates of a number of jobs since the gauge was made.
func (g gauge) read(jobs int) (throughput, error) {
	wall := time.Since(g.start).Seconds()
	own, err := ownCPU()
	if err != nil {
		return throughput{}, err
	}
	redis, err := g.redis.cpu()
	if err != nil {
		return throughput{}, err
	}
	if jobs == 0 {
		return throughput{}, errors.New("invalid: no job was done")
	}
	n := float64(jobs)

	return throughput{perSecond: n / wall, redisUS: (redis - g.redisStart) * 1e6 / n, clientUS: (own - g.ownStart) * 1e6 / n}, nil
}

// storeCycle takes jobs through the store, by callers at once, on a Redis of its own.
func storeCycle(ctx context.Context, s setting, callers int, fsync string, apart bool) (_ throughput, err error) {
	redis, err := startRedis(ctx, s, fsync)
	if err != nil {
		return throughput{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	store, closeStore, err := openStore(ctx, redis.url())
	if err != nil {
		return throughput{}, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	crowd, err := attachCallers(ctx, store, callers)
	if err != nil {
		return throughput{}, err
	}
	for i := range crowd {
		crowd[i].apart = apart
	}
	until := func(d time.Duration) func() bool {
		end := time.Now().Add(d)

		return func() bool { return time.Now().Before(end) }
	}
	warm, err := runCycles(ctx, store, crowd, until(cycleWarm))
	if err != nil {
		return throughput{}, err
	}
	g, err := newGauge(redis)
	if err != nil {
		return throughput{}, err
	}
	ids, err := runCycles(ctx, store, crowd, until(cycleFor))
	if err != nil {
		return throughput{}, err
	}
	got, err := g.read(len(ids))
	if err != nil {
		return throughput{}, err
	}

	return got, checkCompleted(ctx, store, append(warm, ids...))
}

// asynqCycle lets asynq enqueue and process as many tasks of the same size.
func asynqCycle(ctx context.Context, s setting, peer asynqPeer) (_ throughput, err error) {
	redis, err := startRedis(ctx, s, everySecond)
	if err != nil {
		return throughput{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	g, err := newGauge(redis)
	if err != nil {
		return throughput{}, err
	}
	ran, err := peer.run(ctx, redis, "-mode", "cycle", "-tasks", strconv.Itoa(asynqTasks))
	if err != nil {
		return throughput{}, err
	}
	got, err := g.read(asynqTasks)
	if err != nil {
		return throughput{}, err
	}
	got.perSecond = asynqTasks / ran.WallS
	got.clientUS = ran.CPUS * 1e6 / asynqTasks

	return got, nil
}

// trial is a contender of interleaved rounds.
type trial struct {
	name string
	run  func() (throughput, error)
	got  []throughput
}

// of returns the figures of all rounds.
func (t *trial) of(figure func(throughput) float64) []float64 {
	figures := make([]float64, len(t.got))
	for i, got := range t.got {
		figures[i] = figure(got)
	}

	return figures
}

// over is the median of the ratios of the rounds.
func (t *trial) over(peer *trial) float64 {
	ratios := make([]float64, len(t.got))
	for i := range t.got {
		ratios[i] = t.got[i].perSecond / peer.got[i].perSecond
	}

	return median(ratios)
}

// cycle takes jobs from submission to completion, in interleaved rounds.
func cycle(ctx context.Context, s setting, q *quiet) ([]Result, error) {
	asynq, err := buildAsynq(ctx, s)
	if err != nil {
		return nil, err
	}
	store := func(name string, callers int, fsync string, apart bool) *trial {
		return &trial{name: name, run: func() (throughput, error) { return storeCycle(ctx, s, callers, fsync, apart) }}
	}
	few, many := store("cycle/256", 256, everySecond, false), store("cycle/1024", 1024, everySecond, false)
	fewAlways, manyAlways := store("cycle/256/always", 256, always, false), store("cycle/1024/always", 1024, always, false)
	published := store("cycle/1024/apart", 1024, everySecond, true)
	rec, err := record(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("record the ceiling: %w", err)
	}
	ceiling := &trial{name: "cycle/ceiling", run: func() (throughput, error) { return ceilingCycle(ctx, s, rec) }}
	peer := &trial{name: "cycle/asynq", run: func() (throughput, error) { return asynqCycle(ctx, s, asynq) }}
	trials := []*trial{peer, few, many, ceiling, fewAlways, manyAlways, published}
	for range s.rounds {
		for _, t := range trials {
			var got throughput
			if err := q.run(t.name, func() (err error) {
				got, err = t.run()

				return err
			}); err != nil {
				return nil, err
			}
			t.got = append(t.got, got)
		}
	}
	var results []Result
	for _, t := range trials {
		results = append(results,
			plain(t.name, median(t.of(func(t throughput) float64 { return t.perSecond })), "jobs/s", ""),
			plain(t.name+"/redis-cpu", median(t.of(func(t throughput) float64 { return t.redisUS })), "µs/job", ""),
			plain(t.name+"/client-cpu", median(t.of(func(t throughput) float64 { return t.clientUS })), "µs/job", ""))
	}
	results = append(results, plain("cycle/ceiling/batch", 5*float64(len(rec.ids))/float64(rec.commands), "requests/command", ""))
	const enqueueProcess = "asynq 0.26 enqueue + process, without progress"
	for _, t := range []*trial{few, many} {
		results = append(results, atLeast(3, plain(t.name+"/asynq", t.over(peer), "ratio", enqueueProcess)),
			atLeast(0.5, plain(t.name+"/ceiling", t.over(ceiling), "ratio", "as many as Redis had processor time for, of the same scripts in full batches, pipelined")))
	}
	results = append(results, plain(published.name+"/asynq", published.over(peer), "ratio", enqueueProcess+"; of jobs that a sixth call completes"))
	for _, t := range []*trial{fewAlways, manyAlways} {
		results = append(results, atLeast(1, plain(t.name+"/asynq", t.over(peer), "ratio", enqueueProcess+", everysec")))
	}

	return results, nil
}
