package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func crowdTests() map[string]func(*env) {
	return map[string]func(*env){
		"EachTaskIsDoneOnce":      crowdEachTaskOnce,
		"OneOfManyCompletes":      crowdOneCompletes,
		"OneOfManyCancelOrFinish": crowdCancelOrFinish,
	}
}

// Many workers over many jobs, with failures, releases and repeats of every
// call: each task is done exactly once and nothing is left over.
func crowdEachTaskOnce(e *env) {
	const (
		jobs    = 300
		tasks   = 6
		workers = 12
	)

	var (
		wg   sync.WaitGroup
		left atomic.Int64
		mu   sync.Mutex
		done = map[string]int{}
		last = map[string]int{}
		bad  = make(chan error, workers+1)
	)

	left.Store(jobs * (tasks + 1))

	var ids []string
	for range jobs {
		ids = append(ids, e.job().ID)
	}

	news := make([]pipeline.NewTask, tasks)
	for i := range news {
		news[i] = encode(1)
	}

	news[tasks-1].After = []int{0, 1, 2, 3, 4}

	for n := range workers {
		wg.Go(func() {
			c := crowdWorker{e: e, id: fmt.Sprint("w", n), news: news}
			if err := c.run(&left, func(l pipeline.Lease, lastOfRun bool) {
				mu.Lock()
				defer mu.Unlock()

				done[l.Ref.TaskID]++
				if lastOfRun {
					last[l.Job.ID]++
				}
			}); err != nil {
				bad <- err

				left.Store(0)
			}
		})
	}

	wg.Wait()
	close(bad)
	require.NoError(e, <-bad)
	require.Len(e, done, jobs*(tasks+1))

	for id, n := range done {
		require.Equal(e, 1, n, id)
	}

	for _, id := range ids {
		require.Equal(e, 1, last[id])
		require.True(e, e.complete(id, 1))

		for _, task := range e.get(id).Tasks {
			require.Equal(e, pipeline.TaskDone, task.State)

			accepted := slices.DeleteFunc(slices.Clone(task.Attempts), func(a pipeline.Attempt) bool {
				return a.Outcome != pipeline.OutcomeDone
			})
			require.Len(e, accepted, 1)
		}

		events := e.events(id)
		completed := slices.DeleteFunc(events, func(t pipeline.EventType) bool { return t != pipeline.EventCompleted })
		require.Len(e, completed, 1)
	}

	stats, err := e.store.PoolStats(e.ctx())
	require.NoError(e, err)
	require.Equal(e, pipeline.PoolStats{}, stats)

	for _, w := range e.workers() {
		require.Empty(e, w.Held)
	}
}

// crowdWorker works off the queue, repeating every call and giving some tasks back.
type crowdWorker struct {
	e     *env
	id    string
	news  []pipeline.NewTask
	calls int
}

func (c *crowdWorker) run(left *atomic.Int64, accepted func(pipeline.Lease, bool)) error {
	session, _, err := c.e.store.AttachWorker(c.e.ctx(), pipeline.Worker{ID: c.id}, leaseFor)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}

	for left.Load() > 0 {
		c.calls++
		claim := pipeline.Claim{
			RequestID: fmt.Sprint(c.calls), WorkerID: c.id, Session: session, Max: 1 + c.calls%4, Lease: leaseFor,
		}

		got, err := c.e.store.ClaimTasks(c.e.ctx(), claim)
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}

		if len(got.Leases) == 0 {
			continue
		}

		again, err := c.e.store.ClaimTasks(c.e.ctx(), claim)
		if err != nil || len(again.Leases) != len(got.Leases) {
			return fmt.Errorf("replay of a claim: %d for %d: %w", len(again.Leases), len(got.Leases), err)
		}

		for i, l := range got.Leases {
			if err := c.work(i, l, left, accepted); err != nil {
				return err
			}
		}
	}

	return nil
}

func (c *crowdWorker) work(i int, l pipeline.Lease, left *atomic.Int64, accepted func(pipeline.Lease, bool)) error {
	ctx, store := c.e.ctx(), c.e.store
	if _, err := store.RenewLeases(ctx, c.id, leaseFor, []pipeline.Renewal{{Ref: l.Ref, Fraction: 0.5}}); err != nil {
		return fmt.Errorf("renew: %w", err)
	}

	// Each task is given back at most twice, so none dies of it.
	if l.Ref.Attempt < 3 && (c.calls+i)%5 == 0 {
		for range 2 {
			if v, err := store.ReleaseTask(ctx, c.id, l.Ref); err != nil || v != pipeline.VerdictAccepted {
				return fmt.Errorf("release: %s: %w", v, err)
			}
		}

		return nil
	}

	result := pipeline.TaskResult{Ref: l.Ref, WorkerID: c.id}
	if l.Task.Kind == pipeline.KindProbe {
		result.Tasks = c.news
	}

	v, last, err := store.FinishTask(ctx, result)
	if err != nil || v != pipeline.VerdictAccepted {
		return fmt.Errorf("finish: %s: %w", v, err)
	}

	accepted(l, last)
	left.Add(-1)

	if v, again, err := store.FinishTask(ctx, result); err != nil || v != pipeline.VerdictAccepted || again != last {
		return fmt.Errorf("replay of a finish: %s %t: %w", v, again, err)
	}

	return nil
}

// However many replicas publish, there is one completed event.
func crowdOneCompletes(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	e.finish(w, e.claimOne(w).Ref)

	var wg sync.WaitGroup

	for range 10 {
		wg.Go(func() {
			ok, err := e.store.CompleteJob(e.ctx(), j.ID, 1, published())
			if err != nil || !ok {
				e.Errorf("complete: %t, %v", ok, err)
			}
		})
	}

	wg.Wait()

	n := 0

	for _, t := range e.events(j.ID) {
		if t == pipeline.EventCompleted {
			n++
		}
	}

	require.Equal(e, 1, n)
}

// Cancel and the last result at once: either both took effect in order, or the result is stale.
func crowdCancelOrFinish(e *env) {
	w := e.attach("w1")

	for range 30 {
		j := e.planned(w, encode(1))
		l := e.claimOne(w)

		var (
			wg      sync.WaitGroup
			verdict pipeline.Verdict
		)

		wg.Go(func() {
			if _, err := e.store.CancelJob(e.ctx(), j.ID); err != nil {
				e.Errorf("cancel: %v", err)
			}
		})
		wg.Go(func() {
			v, _, err := e.store.FinishTask(e.ctx(), pipeline.TaskResult{Ref: l.Ref, WorkerID: w.id, Result: encoded()})
			if err != nil {
				e.Errorf("finish: %v", err)
			}

			verdict = v
		})
		wg.Wait()

		got := e.get(j.ID)
		require.Equal(e, pipeline.JobCanceled, got.State)

		if verdict == pipeline.VerdictAccepted {
			require.Equal(e, pipeline.TaskDone, got.Tasks[1].State)
		} else {
			require.Equal(e, pipeline.TaskCanceled, got.Tasks[1].State)
		}
	}
}
