package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

const (
	// backlog is how many tasks may be ready before jobs are held back: always
	// some, so that faults find tasks that wait.
	backlog = 15
	// customers are enough that some aren't asking a paused replica.
	customers = 10
	// callWithin bounds one call, so that a customer of a paused replica asks
	// another one.
	callWithin = time.Second
	lookEvery  = 100 * time.Millisecond
)

// orders are jobs that customers want done, whatever fails: each asks one
// replica after the other until one says that the job is taken, and starts a
// job anew whose task took two workers down.
type orders struct {
	cell  *cell
	abort context.CancelCauseFunc // ends the run

	mu      sync.Mutex
	ids     map[string]string // jobs by their idempotency keys
	retries map[string]bool   // "<job> <run>" that was started again
}

// place places orders until stop is closed and there are enough of them.
func (o *orders) place(ctx context.Context, stop <-chan struct{}, enough int) {
	var group sync.WaitGroup
	for customer := range customers {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(o.cell.seed, uint64(customer)))
			for n := customer; ctx.Err() == nil; n += customers {
				select {
				case <-stop:
					if n >= enough {
						return
					}
				default:
				}
				if eventually(ctx, time.Hour, lookEvery, o.hungry(ctx)) != nil {
					return
				}
				o.order(ctx, fmt.Sprintf("job-%d", n), rng)
			}
		})
	}
	group.Wait()
}

// hungry tells whether few tasks wait.
func (o *orders) hungry(ctx context.Context) func() bool {
	return func() bool {
		stats, err := o.cell.store.PoolStats(ctx)

		return err == nil && stats.ReadyTasks < backlog
	}
}

func (o *orders) order(ctx context.Context, key string, rng *rand.Rand) {
	segmentSeconds := 10.0
	source, spec := shortSource, &tcoderv1.JobSpec{
		Preset: "web-optimized", Qualities: []string{"240p"}, Hls: &tcoderv1.HlsSettings{SegmentSeconds: &segmentSeconds},
	}
	switch rng.IntN(10) {
	case 0: // chunks, and sound by itself
		source, spec.Preset = longSource, "hls"
	case 1, 2: // the same, and one task that is blocked by them
		source = longSource
	case 3, 4, 5, 6: // one task, and playlists to publish
		spec.Preset = "hls"
	}
	o.ask(ctx, rng, func(ctx context.Context, client *tcoder.Client) error {
		job, err := client.CreateJob(ctx, source, tcoder.JobOptions{Spec: spec, IdempotencyKey: key})
		if err == nil {
			o.mu.Lock()
			o.ids[key] = job.GetId()
			o.mu.Unlock()
		}

		return err
	})
}

// ask asks one replica after the other until one answers well. Any may answer
// badly because of a fault; that a request is wrong is ours.
func (o *orders) ask(ctx context.Context, rng *rand.Rand, f func(context.Context, *tcoder.Client) error) {
	at := rng.IntN(replicaCount)
	_ = eventually(ctx, time.Hour, lookEvery, func() bool {
		ctx, cancel := context.WithTimeout(ctx, callWithin)
		defer cancel()
		at = (at + 1) % replicaCount

		err := f(ctx, o.cell.replicas[at].client)
		if connect.CodeOf(err) == connect.CodeInvalidArgument {
			o.abort(err)

			return true
		}

		return err == nil
	})
}

// started waits until tasks run and others wait.
func (o *orders) started(ctx context.Context) error {
	return eventually(ctx, time.Minute, lookEvery, func() bool {
		stats, err := o.cell.store.PoolStats(ctx)

		return err == nil && stats.LeasedTasks > 0 && stats.ReadyTasks > 0
	})
}

// redrive starts failed jobs again until ctx ends.
func (o *orders) redrive(ctx context.Context) {
	rng := rand.New(rand.NewPCG(o.cell.seed, customers))
	_ = eventually(ctx, time.Hour, lookEvery, func() bool {
		failed, err := o.cell.store.ListJobs(ctx, pipeline.JobFilter{
			Project: pipeline.DefaultProject, States: []pipeline.JobState{pipeline.JobFailed, pipeline.JobCanceled}, Limit: 100,
		})
		if err != nil {
			return false
		}
		for _, job := range failed {
			if job.Failure == nil || job.Failure.Reason != pipeline.ReasonQuarantined {
				o.abort(fmt.Errorf("job %s is %s for a reason that no fault here explains: %+v", job.ID, job.State, job.Failure))

				return true
			}
			o.ask(ctx, rng, func(ctx context.Context, client *tcoder.Client) error {
				_, err := client.RetryJob(ctx, job.ID, tcoder.AfterRun(uint32(job.Run)))

				return err
			})
			o.mu.Lock()
			o.retries[fmt.Sprint(job.ID, " ", job.Run)] = true
			o.mu.Unlock()
		}

		return false
	})
}

// taken are the jobs that were accepted, by id.
func (o *orders) taken(t *testing.T) map[string]bool {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := map[string]bool{}
	for _, id := range o.ids {
		ids[id] = true
	}
	if len(ids) != len(o.ids) {
		t.Errorf("%d orders came to %d jobs", len(o.ids), len(ids))
	}

	return ids
}
