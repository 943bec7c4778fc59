package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
	"github.com/tcoder-dev/tcoder/worker"
)

const (
	latencyTasks  = 200 // of a contender in a round
	latencyFew    = 100 // of those that are told and not judged
	latencyEvery  = 20 * time.Millisecond
	latencySlots  = 32 // as many as the peers' workers have
	latencyWithin = 30 * time.Second
	// floorScript stores a task and queues it, as bare as can be.
	floorScript = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('ZADD', KEYS[2], ARGV[2], KEYS[1]) return 1"
)

// spread are two percentiles of a contender in a round, in ms.
type spread struct{ p50, p99 float64 }

func spreadOf(ms []float64) spread {
	slices.Sort(ms)
	at := func(share float64) float64 { return ms[min(len(ms)-1, int(math.Ceil(share*float64(len(ms))))-1)] }

	return spread{p50: at(0.5), p99: at(0.99)}
}

// pace calls f so often, at a steady rate.
func pace(ctx context.Context, n int, f func(i int) error) error {
	tick := time.NewTicker(latencyEvery)
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := f(i); err != nil {
			return err
		}
	}

	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// floorLatency is what one call of a small script takes at that rate.
func floorLatency(ctx context.Context, s setting) (_ spread, err error) {
	redis, err := startRedis(ctx, s, everySecond)
	if err != nil {
		return spread{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	loaded, err := redis.conn.do("SCRIPT", "LOAD", floorScript)
	if err != nil {
		return spread{}, err
	}
	sum, _ := loaded.(string)
	body := strings.Repeat("x", specBytes)
	var ms []float64
	err = pace(ctx, latencyTasks, func(i int) error {
		start := time.Now()
		_, err := redis.conn.do("EVALSHA", sum, "2", "job-"+strconv.Itoa(i), "queue", body, strconv.Itoa(i))
		ms = append(ms, milliseconds(time.Since(start)))

		return err
	})
	if err != nil {
		return spread{}, err
	}

	return spreadOf(ms), nil
}

// asynqLatency asks asynq's server to look for tasks so often; 0 is its default.
func asynqLatency(ctx context.Context, s setting, peer asynqPeer, check time.Duration) (_ spread, err error) {
	return peerLatency(ctx, s, func(redis *redisServer) (peerRun, error) {
		return peer.run(ctx, redis, "-mode", "latency", "-tasks", strconv.Itoa(latencyFew), "-every", latencyEvery.String(), "-check", check.String())
	})
}

func bullmqLatency(ctx context.Context, s setting, peer bullmqPeer) (_ spread, err error) {
	return peerLatency(ctx, s, func(redis *redisServer) (peerRun, error) {
		return peer.run(ctx, redis, "--tasks", strconv.Itoa(latencyTasks), "--every", strconv.FormatInt(latencyEvery.Milliseconds(), 10))
	})
}

func peerLatency(ctx context.Context, s setting, run func(*redisServer) (peerRun, error)) (_ spread, err error) {
	redis, err := startRedis(ctx, s, everySecond)
	if err != nil {
		return spread{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	ran, err := run(redis)
	if err != nil {
		return spread{}, err
	}
	if len(ran.LatencyMs) != ran.Submitted {
		return spread{}, fmt.Errorf("invalid: the peer tells of %d tasks, not %d", len(ran.LatencyMs), ran.Submitted)
	}

	return spreadOf(ran.LatencyMs), nil
}

// arrivals is when tasks came to their workers, by job.
type arrivals struct {
	mu sync.Mutex
	at map[string]time.Time
}

// execute is a worker's work: to note when it came.
func (a *arrivals) execute(_ context.Context, attempt worker.Attempt) (*tcoderv1.TaskReport, error) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[attempt.Assignment.GetJobId()] = now

	return refuse()
}

// since returns how long after their submission jobs came, once all have.
func (a *arrivals) since(ctx context.Context, sent map[string]time.Time) ([]float64, error) {
	var ms []float64
	err := until(ctx, latencyWithin, "the last assignment", func() (bool, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		ms = ms[:0]
		for id, at := range sent {
			if came, ok := a.at[id]; ok {
				ms = append(ms, milliseconds(came.Sub(at)))
			}
		}

		return len(ms) == len(sent), nil
	})

	return ms, err
}

// dispatching is a cell with an idle worker.
type dispatching struct {
	cell   *cell
	crew   *crew
	store  *redisstore.Store // submits past the control plane, which learns of it by Redis's word
	client *tcoder.Client
	source string
	came   *arrivals
}

func startDispatching(ctx context.Context, s setting) (_ *dispatching, err error) {
	d := &dispatching{came: &arrivals{at: map[string]time.Time{}}, source: "bench/clip.mp4"}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	if d.cell, err = startCell(ctx, s, 1, false, "--pool", "none"); err != nil {
		return nil, err
	}
	if d.store, err = redisstore.New(redisstore.Config{URL: d.cell.redis.url()}); err != nil {
		return nil, err
	}
	in, err := d.cell.bucket(bucketIn)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := in.Put(ctx, d.source, strings.NewReader("a clip"), objectstore.PutOptions{}); err != nil {
		return nil, err
	}
	url := d.cell.planes[0].url
	if d.client, err = tcoder.New(url); err != nil {
		return nil, err
	}
	if d.crew, err = startCrew(ctx, s, url, 1, latencySlots, 0, d.came.execute); err != nil {
		return nil, err
	}
	// The first jobs show that the worker is there, and pay for connections and scripts.
	for _, submit := range []func(context.Context) (string, error){d.submit, d.create} {
		id, err := submit(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := d.came.since(ctx, map[string]time.Time{id: time.Now()}); err != nil {
			return nil, err
		}
	}

	return d, nil
}

// submit queues a job as another replica would.
func (d *dispatching) submit(ctx context.Context) (string, error) { return submitProbe(ctx, d.store) }

// submitProbe stores a job that is ready to be probed.
func submitProbe(ctx context.Context, store *redisstore.Store) (string, error) {
	job, task := benchJob(ulid.Make().String(), projectName(0))
	task.Kind, task.Output = pipeline.KindProbe, ""
	_, err := store.CreateJob(ctx, job, task, pipeline.Admission{})

	return job.ID, err
}

// create creates a job through the API.
func (d *dispatching) create(ctx context.Context) (string, error) {
	job, err := d.client.CreateJob(ctx, d.source, tcoder.JobOptions{})

	return job.GetId(), err
}

// round submits jobs at a steady rate, and times each from just before its
// submission until its task is with the worker.
func (d *dispatching) round(ctx context.Context, n int, submit func(context.Context) (string, error)) (spread, error) {
	sent := map[string]time.Time{}
	if err := pace(ctx, n, func(int) error {
		start := time.Now()
		id, err := submit(ctx)
		sent[id] = start

		return err
	}); err != nil {
		return spread{}, err
	}
	ms, err := d.came.since(ctx, sent)
	if err != nil {
		return spread{}, err
	}

	return spreadOf(ms), nil
}

func (d *dispatching) stop() error {
	var errs []error
	if d.crew != nil {
		errs = append(errs, d.crew.stop())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.cell != nil {
		errs = append(errs, d.cell.stop())
	}

	return errors.Join(errs...)
}

// latency times what becomes of 50 jobs a second, in interleaved rounds.
func latency(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	asynq, err := buildAsynq(ctx, s)
	if err != nil {
		return nil, err
	}
	bullmq, err := installBullMQ(ctx)
	if err != nil {
		return nil, err
	}
	d, err := startDispatching(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	const floor, own, peer = "floor", "dispatch", "bullmq"
	contenders := []struct {
		name string
		run  func() (spread, error)
	}{
		{floor, func() (spread, error) { return floorLatency(ctx, s) }},
		{own, func() (spread, error) { return d.round(ctx, latencyTasks, d.submit) }},
		{peer, func() (spread, error) { return bullmqLatency(ctx, s, bullmq) }},
		{"dispatch-by-api", func() (spread, error) { return d.round(ctx, latencyFew, d.create) }},
		{"asynq-10ms", func() (spread, error) { return asynqLatency(ctx, s, asynq, 10*time.Millisecond) }},
		{"asynq", func() (spread, error) { return asynqLatency(ctx, s, asynq, 0) }},
	}
	got := map[string][]spread{}
	for range s.rounds {
		for _, c := range contenders {
			var one spread
			if err := q.run("latency/"+c.name, func() (err error) {
				one, err = c.run()

				return err
			}); err != nil {
				return nil, err
			}
			got[c.name] = append(got[c.name], one)
		}
	}
	var results []Result
	over := func(figure func(round int) float64) float64 {
		figures := make([]float64, s.rounds)
		for i := range figures {
			figures[i] = figure(i)
		}

		return median(figures)
	}
	for _, c := range contenders {
		results = append(results,
			plain("latency/"+c.name+"/p50", over(func(i int) float64 { return got[c.name][i].p50 }), "ms", ""),
			plain("latency/"+c.name+"/p99", over(func(i int) float64 { return got[c.name][i].p99 }), "ms", ""))
	}

	return append(results,
		atMost(3, plain("latency/dispatch/p50/floor", over(func(i int) float64 { return got[own][i].p50 / got[floor][i].p50 }), "ratio",
			"p50 of one call of a script that stores and queues 300 bytes")),
		atMost(1, plain("latency/dispatch/p99/bullmq", over(func(i int) float64 { return got[own][i].p99 / got[peer][i].p99 }), "ratio",
			"p99 of BullMQ 6.7, add to processor"))), nil
}
