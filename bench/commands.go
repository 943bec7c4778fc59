package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/worker"
)

const (
	commandJobs = 8
	// commandPause lies between two jobs, so that none shares its calls with another.
	commandPause = 1200 * time.Millisecond
	encodeFor    = 10 * time.Second
	preparedFor  = 5 * time.Minute // the lease of who prepares jobs
)

// prepared is a job whose probe is leased to the harness: once that has told
// its result the job is one task that is ready.
type prepared struct {
	store *redisstore.Store
	crew  caller
	lease pipeline.Lease
}

// prepare creates jobs that wait for the result of their probes, and returns
// what creating one took on the wire.
func prepare(ctx context.Context, redis *redisServer, n int) (_ []prepared, commands float64, closeStore func() error, err error) {
	counter, err := startCounter(ctx, redis.address)
	if err != nil {
		return nil, 0, nil, err
	}
	store, err := redisstore.New(redisstore.Config{URL: counter.url()})
	if err != nil {
		return nil, 0, nil, errors.Join(err, counter.close())
	}
	closeStore = func() error { return errors.Join(store.Close(), counter.close()) }
	defer func() {
		if err != nil {
			err = errors.Join(err, closeStore())
		}
	}()
	callers, err := attachCallers(ctx, store, 1)
	if err != nil {
		return nil, 0, nil, err
	}
	create := func(i int) error {
		job, task := benchJob(ulid.Make().String(), projectName(i))
		job.Spec = media.Spec{Preset: "web-optimized", Qualities: []string{"240p"}}
		task.Kind, task.Output = pipeline.KindProbe, ""
		_, err := store.CreateJob(ctx, job, task, pipeline.Admission{WaitingLimit: waitingLimit, IdempotencyKey: job.ID, KeyTTL: keyTTL})

		return err
	}
	if err := create(0); err != nil { // the first pays for the connection and the script
		return nil, 0, nil, err
	}
	counter.take()
	for i := 1; i < n; i++ {
		if err := create(i); err != nil {
			return nil, 0, nil, err
		}
	}
	commands = float64(total(counter.take())) / float64(n-1)
	claimed, err := store.ClaimTasks(ctx, pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: callers[0].worker, Session: callers[0].session, Max: n, Lease: preparedFor,
	})
	if err != nil || len(claimed.Leases) != n {
		return nil, 0, nil, fmt.Errorf("invalid: %d of %d probes were claimed: %w", len(claimed.Leases), n, err)
	}
	jobs := make([]prepared, n)
	for i, l := range claimed.Leases {
		jobs[i] = prepared{store: store, crew: callers[0], lease: l}
	}

	return jobs, commands, closeStore, nil
}

// begin makes the job's one task ready.
func (p prepared) begin(ctx context.Context) error {
	spec, err := media.Resolve(p.lease.Job.Spec)
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	probe := media.Probe{
		Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: fakeSeconds * time.Second,
		Streams: []media.Stream{{
			Kind: media.StreamVideo, Codec: "h264", Width: 426, Height: 240, PixelFormat: "yuv420p", Duration: fakeSeconds * time.Second,
			FrameRate: media.Rational{Num: fakeRate, Den: 1}, NominalFrameRate: media.Rational{Num: fakeRate, Den: 1},
		}},
	}
	plan, err := media.MakePlan(probe, spec, media.Limits{MaxDuration: time.Hour, MaxPixels: 1 << 30, MaxFPS: 240, MaxStreams: 8}, 1)
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	tasks := media.Tasks(plan)
	if len(tasks) != 1 {
		return fmt.Errorf("invalid: the job has %d tasks beside its probe", len(tasks))
	}
	v, _, err := p.store.FinishTask(ctx, pipeline.TaskResult{
		Ref: p.lease.Ref, WorkerID: p.crew.worker, Probe: &probe, Plan: &plan,
		Tasks: []pipeline.NewTask{{Kind: pipeline.KindEncode, Output: tasks[0].Output, Weight: tasks[0].Weight}},
	})
	if err == nil && v != pipeline.VerdictAccepted {
		err = fmt.Errorf("invalid: the result of a probe is %s", v)
	}

	return err
}

// completed waits for the end of jobs.
func completed(ctx context.Context, jobs []prepared) error {
	return until(ctx, time.Minute, "a job", func() (bool, error) {
		for _, p := range jobs {
			job, err := p.store.GetJob(ctx, p.lease.Job.ID)
			switch {
			case err != nil:
				return false, err
			case job.State.Terminal() && job.State != pipeline.JobCompleted:
				return false, fmt.Errorf("invalid: job %s is %s: %+v", job.ID, job.State, job.Failure)
			case !job.State.Terminal():
				return false, nil
			}
		}

		return true, nil
	})
}

// commands counts what the wire carries for a job of one task with 10 s of
// progress, from its submission until it is published.
func commands(ctx context.Context, s setting, _ *quiet) (_ []Result, err error) {
	c, err := startCell(ctx, s, 1, true, "--pool", "none")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	jobs, submit, closeStore, err := prepare(ctx, c.redis, commandJobs+1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	lasts := time.Duration(0) // the first job pays for connections and scripts
	workers, err := startCrew(ctx, s, c.planes[0].url, commandJobs, 1, 0, func(ctx context.Context, a worker.Attempt) (*tcoderv1.TaskReport, error) {
		return fakeEncode(ctx, a, lasts)
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, workers.stop()) }()
	if err := attachedTo(ctx, jobs[0].store, commandJobs); err != nil {
		return nil, err
	}
	if err := errors.Join(jobs[0].begin(ctx), completed(ctx, jobs[:1])); err != nil {
		return nil, err
	}
	lasts = encodeFor
	c.planes[0].tap.take()
	for _, job := range jobs[1:] {
		if err := job.begin(ctx); err != nil {
			return nil, err
		}
		wait(ctx, commandPause)
	}
	if err := completed(ctx, jobs[1:]); err != nil {
		return nil, err
	}
	counts := c.planes[0].tap.take()
	tell("commands of "+fmt.Sprint(commandJobs)+" jobs", counts)

	return []Result{atMost(12, plain("commands/job", submit+float64(total(counts))/commandJobs, "commands",
		"on the wire: one task, 10 s of progress, one after the other on a replica and its workers"))}, nil
}

// attachedTo waits until so many workers of a deployment are attached, beside the harness's own.
func attachedTo(ctx context.Context, store pipeline.Store, n int) error {
	return until(ctx, time.Minute, "attaching workers", func() (bool, error) {
		workers, err := store.ListWorkers(ctx)

		return len(workers) >= n, err
	})
}

func total(counts map[string]int) int {
	sum := 0
	for n := range maps.Values(counts) {
		sum += n
	}

	return sum
}

// tell names the commands that were counted.
func tell(title string, counts map[string]int) {
	fmt.Fprintf(os.Stderr, "scheduler: %s:", title)
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(os.Stderr, " %s %d", name, counts[name])
	}
	fmt.Fprintln(os.Stderr)
}
