package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// orderEvery keeps workers busy, and leaves them the time to catch up.
	orderEvery = 100 * time.Millisecond
	// restartPause lies before each restart, and after the last.
	restartPause = 1500 * time.Millisecond
	// stallLimit is what a job may stand still for, on a machine that does
	// much else. What it did stand still for is told.
	stallLimit = 5 * time.Second
)

// Restarting every control plane under load, one after the other, guarantees
// that no job fails, no attempt is charged, and no job stands still for long.
func TestRollingRestart(t *testing.T) {
	c := newCell(t, shortSeed, true)
	o := &orders{cell: c, ids: map[string]string{}, retries: map[string]bool{}}
	ctx, abort := context.WithCancelCause(t.Context())
	defer abort(nil)
	o.abort = abort
	stop := make(chan struct{})
	var customer sync.WaitGroup
	customer.Go(func() { o.placeSteadily(ctx, stop) })
	for _, r := range c.replicas {
		wait(ctx, restartPause)
		began := time.Now()
		r.Stop(t, syscall.SIGTERM)
		stopped := time.Since(began)
		c.serve(t, r)
		t.Logf("replica %s stopped in %s, and served again after %s", r.address,
			stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	wait(ctx, restartPause)
	close(stop)
	customer.Wait()
	require.NoError(t, context.Cause(ctx))

	taken := o.taken(t)
	var jobs []pipeline.Job
	require.NoError(t, eventually(ctx, settleWithin, lookEvery, func() bool {
		var err error
		jobs, err = c.list(ctx, pipeline.JobCompleted, pipeline.JobFailed, pipeline.JobCanceled)

		return err == nil && len(jobs) == len(taken)
	}), "jobs that don't end")
	var longest time.Duration
	for _, listed := range jobs {
		job, err := c.store.GetJob(ctx, listed.ID)
		require.NoError(t, err)
		require.Equal(t, pipeline.JobCompleted, job.State, job.ID)
		for _, task := range job.Tasks {
			for _, attempt := range task.Attempts {
				require.False(t, attempt.Charged, "%s: %+v", task.ID, attempt)
			}
		}
		events, err := c.store.JobEvents(ctx, job.ID, 0)
		require.NoError(t, err)
		for i := 1; i < len(events); i++ {
			longest = max(longest, events[i].At.Sub(events[i-1].At))
		}
	}
	require.Greater(t, len(jobs), 20)
	t.Logf("%d jobs; the longest that one stood still between two of its events: %s, of which an attempt takes %s at most",
		len(jobs), longest, fakeLongest)
	require.Less(t, longest, stallLimit)
}

// placeSteadily places orders at a pace until stop is closed.
func (o *orders) placeSteadily(ctx context.Context, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(o.cell.seed, 0))
	tick := time.NewTicker(orderEvery)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
			o.order(ctx, fmt.Sprintf("steady-%d", n), rng)
		}
	}
}
