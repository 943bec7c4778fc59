package celltest_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/worker"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// patience is how long a test waits for what must come, in fake time.
const patience = 2 * time.Minute

func slots(n int) func(*worker.Config) { return func(cfg *worker.Config) { cfg.Slots = n } }

// started waits for the next attempt that a worker is given.
func started(t *testing.T, w *celltest.Worker) *celltest.Run {
	t.Helper()

	select {
	case run := <-w.Runs:
		return run
	case err := <-w.Ended:
		require.FailNow(t, "the worker ended", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "nothing was assigned")
	}

	return nil
}

// attached waits until one of the replicas holds a worker's session.
func attached(t *testing.T, id string, replicas ...*celltest.Replica) *celltest.Replica {
	t.Helper()

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); pass(time.Millisecond) {
		for _, r := range replicas {
			if slices.Contains(r.Attached(), id) {
				return r
			}
		}
	}

	require.FailNow(t, "the worker isn't attached")

	return nil
}

// pass lets fake time pass.
func pass(d time.Duration) { <-time.After(d) }

// attempts are those of a job's task.
func attempts(t *testing.T, c *celltest.Cell, job pipeline.Job, task int) []pipeline.Attempt {
	t.Helper()

	return c.Job(t, job.ID).Tasks[task].Attempts
}

// TestFirstAttach guarantees that a job goes through a cell: it is pushed to an
// idle worker in the moment it is ready, and its result is published.
func TestFirstAttach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"})
		attached(t, "w", a)
		pass(time.Hour) // idle

		now := time.Now()
		job := c.Submit(t)
		probe := started(t, w)
		require.Equal(t, tcoderv1.TaskKind_TASK_KIND_PROBE, probe.Assignment.GetKind())
		probe.Finish(t)

		encode := started(t, w)
		require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ENCODE, encode.Assignment.GetKind())
		encode.Finish(t)
		require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)
		require.Zero(t, time.Since(now), "nothing waited for a clock")
	})
}

// TestReconnectKeepsAttempt guarantees that a cut stream changes nothing: the
// worker goes on, attaches again at once, and ends the same attempt.
func TestReconnectKeepsAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"})
		job := c.Submit(t)
		run := started(t, w)

		for range 5 {
			pass(17 * time.Second)
			c.Network.Cut("w", "a")
			pass(time.Second)
			require.Equal(t, 1, c.Network.Open("w", "a"), "it is attached again within a second")
		}

		require.NoError(t, run.Context.Err())
		run.Finish(t)
		started(t, w).Finish(t)
		require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)
		require.Len(t, attempts(t, c, job, 0), 1)
	})
}

// TestHalfOpen guarantees that a connection on which everything vanishes is
// found out by both sides in time to keep the lease.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"})
		attached(t, "w", a)
		job := c.Submit(t)
		run := started(t, w)

		pass(12 * time.Second)
		a.Store.Counts()

		lost := time.Now()

		c.Network.Lose("w", "a")

		for a.Store.Counts()["AttachWorker"] == 0 {
			pass(10 * time.Millisecond)
			require.Less(t, time.Since(lost), celltest.Lease-celltest.Heartbeat)
		}

		pass(2 * celltest.Lease)
		require.Equal(t, []string{"w"}, a.Attached())
		require.Equal(t, 1, c.Network.Open("w", "a"))
		require.NoError(t, run.Context.Err())
		run.Finish(t)
		require.Equal(t, pipeline.OutcomeDone, finished(t, c, job, 0).Outcome)
	})
}

// finished waits for the end of a task's only attempt.
func finished(t *testing.T, c *celltest.Cell, job pipeline.Job, task int) pipeline.Attempt {
	t.Helper()

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); pass(10 * time.Millisecond) {
		if all := attempts(t, c, job, task); !all[0].Ended.IsZero() {
			require.Len(t, all, 1)

			return all[0]
		}
	}

	require.FailNow(t, "the attempt doesn't end")

	return pipeline.Attempt{}
}

// TestReplicaSwitch guarantees that a control plane which dies without a word
// costs no attempt: its workers are with another one before their leases run
// out, and that one takes their results.
func TestReplicaSwitch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a, b := c.Replica(t, "a"), c.Replica(t, "b")
		w := c.Worker(t, "w", []string{"a", "b"})
		first := attached(t, "w", a, b)
		job := c.Submit(t)
		run := started(t, w)

		other := a
		if first == a {
			other = b
		}

		pass(11 * time.Second)
		first.Kill()
		require.Equal(t, other, attached(t, "w", other))
		pass(2 * celltest.Lease)

		run.Finish(t)
		started(t, w).Finish(t)
		require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)
		require.Len(t, attempts(t, c, job, 0), 1)
	})
}

// TestDrain guarantees that a worker which is told to drain by any replica
// hands back what doesn't end soon, at once and uncharged, and leaves.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		c.Replica(t, "b")

		w := c.Worker(t, "w", []string{"a"})
		attached(t, "w", a)
		job := c.Submit(t)
		run := started(t, w)
		run.Progress(&tcoderv1.TaskProgress{Lease: run.Lease(), Fraction: 0.01}) // far from its end
		pass(time.Minute)

		other := c.Worker(t, "other", []string{"a"})
		attached(t, "other", a)

		told := time.Now()
		_, err := c.API("b").DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: "w"})
		require.NoError(t, err)

		again := started(t, other)
		require.Equal(t, run.Lease().GetTaskId(), again.Lease().GetTaskId())
		require.EqualValues(t, 2, again.Lease().GetAttempt())
		require.Less(t, time.Since(told), time.Second)
		require.NoError(t, <-w.Ended)
		require.Error(t, run.Context.Err())

		given := attempts(t, c, job, 0)[0]
		require.Equal(t, pipeline.OutcomeReleased, given.Outcome)
		require.False(t, given.Charged)
		again.Finish(t)
	})
}

// TestZombie guarantees that a worker which was away for longer than its lease
// finds its attempt gone: it is told so, gives it up, and what it says of it
// changes nothing.
func TestZombie(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		zombie := c.Worker(t, "zombie", []string{"a"}, slots(2))
		attached(t, "zombie", a)
		done, lost := c.Submit(t), c.Submit(t)
		first, second := started(t, zombie), started(t, zombie)

		healthy := c.Worker(t, "healthy", []string{"a"}, slots(2))
		attached(t, "healthy", a)
		pass(time.Minute)

		away := time.Now()

		c.Network.Refuse("zombie", "", true)
		c.Network.Lose("zombie", "")
		first.Finish(t) // it says so when it is back

		again := []*celltest.Run{started(t, healthy), started(t, healthy)}
		require.LessOrEqual(t, time.Since(away), celltest.Lease+2*time.Second)

		for _, run := range again {
			require.EqualValues(t, 2, run.Lease().GetAttempt())
			run.Finish(t)
		}

		for range 2 {
			started(t, healthy).Finish(t)
		}

		c.Network.Refuse("zombie", "", false)
		<-second.Context.Done()
		require.Less(t, time.Since(away), celltest.Lease+10*time.Second, "it is told with its welcome")

		for _, job := range []pipeline.Job{done, lost} {
			ended := c.Ended(t, job.ID)
			require.Equal(t, pipeline.JobCompleted, ended.State)

			all := ended.Tasks[0].Attempts
			require.Equal(t, []pipeline.Outcome{pipeline.OutcomeLost, pipeline.OutcomeDone}, []pipeline.Outcome{all[0].Outcome, all[1].Outcome})
			require.Equal(t, "healthy", all[1].WorkerID)
		}

		require.Equal(t, []string{"healthy", "zombie"}, slices.Sorted(slices.Values(a.Attached())))
	})
}

// TestAway guarantees that a worker which is away again and again with the same
// task, and comes back each time, isn't taken for one that the task took down.
func TestAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		w := c.Worker(t, "w", []string{"a"})
		attached(t, "w", c.Replica(t, "a"))
		job := c.Submit(t)
		times := 2 * pipeline.DefaultRetryPolicy().MaxLosses

		for range times {
			run := started(t, w)

			c.Network.Refuse("w", "", true)
			c.Network.Lose("w", "")
			pass(2 * celltest.Lease)
			c.Network.Refuse("w", "", false)
			<-run.Context.Done()
		}

		started(t, w).Finish(t)
		started(t, w).Finish(t)

		ended := c.Ended(t, job.ID)
		require.Equal(t, pipeline.JobCompleted, ended.State)

		for n, a := range ended.Tasks[0].Attempts[:times] {
			require.Equal(t, pipeline.OutcomeReleased, a.Outcome, n)
			require.False(t, a.Charged, n)
		}
	})
}
