package crash_test

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// form is how much a run does.
type form struct {
	rounds int // of every kind of fault
	least  int // hits of each state by each kind
	jobs   int // at least
	lanes  int // faults at a time
	within time.Duration
}

const (
	settleWithin = time.Minute
	shortSeed    = 182753 // the short form is the same plan every time, the long one a new one
)

func chosen(t *testing.T) (form, uint64) {
	t.Helper()
	f, seed := form{rounds: 2, least: 1, jobs: 100, lanes: 3, within: 90 * time.Second}, uint64(shortSeed)
	if os.Getenv("TCODER_CRASH") == "long" {
		f = form{rounds: 20, least: 20, jobs: 2000, lanes: 5, within: 235 * time.Second}
		seed = rand.Uint64N(1_000_000)
	}
	if text := os.Getenv("TCODER_CRASH_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}

	return f, seed
}

// Whatever part of a cell is killed, paused or cut off, whenever, guarantees
// that each job that was taken completes once, and that nothing is left of it
// but its record and its outputs.
func TestCrash(t *testing.T) {
	form, seed := chosen(t)
	began := time.Now()
	p := newPlan(seed, form.rounds, form.least)
	c := newCell(t, seed, false)
	o := &orders{cell: c, ids: map[string]string{}, retries: map[string]bool{}}
	t.Cleanup(func() {
		t.Logf("seed %d (again: TCODER_CRASH_SEED=%d), %d jobs, %d of them more than once, %s\n%s",
			seed, seed, len(o.ids), len(o.retries), time.Since(began).Round(time.Second), p.table())
	})

	whole, abort := context.WithCancelCause(t.Context())
	defer abort(nil)
	o.abort = abort
	ctx, cancel := context.WithTimeout(whole, form.within)
	defer cancel()
	stop := make(chan struct{})
	redriving, endRedriving := context.WithCancel(whole)
	var customers, clerk sync.WaitGroup
	customers.Go(func() { o.place(ctx, stop, form.jobs) })
	clerk.Go(func() { o.redrive(redriving) })
	require.NoError(t, o.started(ctx))
	newStrikes(t, c, p).run(ctx, form.lanes)
	t.Logf("the last fault after %s", time.Since(began).Round(time.Second))
	close(stop)
	customers.Wait()
	t.Logf("the last job placed after %s", time.Since(began).Round(time.Second))
	require.NoError(t, context.Cause(ctx), "the faults and jobs of the plan take too long; not hit often enough: %s", p.short())

	c.settle(t, whole)
	endRedriving()
	clerk.Wait()
	t.Logf("the last job ended after %s", time.Since(began).Round(time.Second))
	c.close(t, o)
	require.Empty(t, p.short(), "faults that didn't hit each state often enough")
	c.verify(t, o)
}

// settle waits until all tasks have ended, and no job is to be started again.
func (c *cell) settle(t *testing.T, ctx context.Context) {
	t.Helper()
	var open []sight
	err := eventually(ctx, settleWithin, lookEvery, func() bool {
		all, err := c.look(ctx)
		if err != nil {
			return false
		}
		open = slices.DeleteFunc(all, func(s sight) bool { return s.state == unheard || s.state == unpublished })
		failed, err := c.list(ctx, pipeline.JobFailed)

		return err == nil && len(open) == 0 && len(failed) == 0
	})
	require.NoError(t, err, "tasks that haven't ended: %v", open)
}

// list returns the jobs in some states.
func (c *cell) list(ctx context.Context, in ...pipeline.JobState) ([]pipeline.Job, error) {
	var all []pipeline.Job
	filter := pipeline.JobFilter{Project: pipeline.DefaultProject, States: in, Limit: 500}
	for {
		page, err := c.store.ListJobs(ctx, filter)
		all = append(all, page...)
		if err != nil || len(page) < filter.Limit {
			return all, err
		}
		filter.Before = page[len(page)-1].ID
	}
}

// close stops everything in peace. What duties are left come due while nobody
// is there, and the first control plane to start does them.
func (c *cell) close(t *testing.T, o *orders) {
	t.Helper()
	for _, p := range c.workers {
		p.Stop(t, syscall.SIGTERM)
	}
	for _, r := range c.replicas {
		r.Stop(t, syscall.SIGTERM)
	}
	taken := len(o.taken(t))
	r := c.replicas[0]
	// A job that is published now may leave something to be cleaned up minutes
	// later: the second time has that done.
	for _, later := range []string{string(pipeline.DutyClean) + "|", "nothing"} {
		require.NoError(t, c.store.AdvanceClock(t.Context(), 2*time.Hour))
		c.serve(t, r)
		require.NoError(t, eventually(t.Context(), settleWithin, lookEvery, func() bool {
			done, err := c.list(t.Context(), pipeline.JobCompleted)
			undone := slices.DeleteFunc(c.elements(t)["duties"], func(duty string) bool { return strings.HasPrefix(duty, later) })

			return err == nil && len(done) == taken && len(undone) == 0
		}), "duties that nobody does: %v", c.elements(t)["duties"])
		r.Stop(t, syscall.SIGTERM)
	}
}
