package celltest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/worker"
)

// total is how many calls were made.
func total(counts map[string]int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}

	return sum
}

// TestIdle guarantees that a cell with nothing to do leaves its store alone:
// what a replica asks for in an hour is bounded, however many workers it holds,
// by stream or by calls.
func TestIdle(t *testing.T) {
	t.Parallel()

	for _, transport := range []worker.Transport{worker.TransportStream, worker.TransportSync} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := celltest.New()
				replicas := []*celltest.Replica{c.Replica(t, "a"), c.Replica(t, "b")}
				const workers = 4

				for i := range workers {
					c.Worker(t, fmt.Sprintf("w%d", i), []string{"a", "b"}, slots(2), func(cfg *worker.Config) { cfg.Transport = transport })
				}

				pass(time.Minute)
				require.Len(t, append(replicas[0].Attached(), replicas[1].Attached()...), workers)

				for _, r := range replicas {
					require.NotEmpty(t, r.Attached())
					r.Store.Counts()
				}

				pass(time.Hour)

				for _, r := range replicas {
					counts := r.Store.Counts()
					t.Log(r.Name, counts)
					require.Zero(t, counts["RenewLeases"], "an idle worker's heartbeats cost nothing")
					require.LessOrEqual(t, total(counts), 300)
				}
			})
		})
	}
}

// TestHeartbeatsAreOneCall guarantees that all leases of a worker are renewed
// by one call, once a heartbeat, and last as long as they run.
func TestHeartbeatsAreOneCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const tasks = 16

		c := celltest.New()
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"}, slots(tasks))
		attached(t, "w", a)

		runs := make([]*celltest.Run, tasks)
		for i := range runs {
			c.Submit(t)
			runs[i] = started(t, w)
		}

		a.Store.Counts()
		pass(100 * time.Second) // a probe may take two minutes

		counts := a.Store.Counts()
		require.InDelta(t, 100/celltest.Heartbeat.Seconds(), counts["RenewLeases"], 1)

		for _, run := range runs {
			require.NoError(t, run.Context.Err())
			require.EqualValues(t, 1, run.Lease().GetAttempt())
			run.Finish(t)
		}
	})
}

// TestProgressIsThrottled guarantees that what an attempt tells ten times a
// second reaches the store every two seconds, and more often only while
// somebody watches.
func TestProgressIsThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"})
		job := c.Submit(t)
		started(t, w).Finish(t)

		run := started(t, w)
		tell := func(seconds int) int {
			a.Store.Counts()

			for i := range 10 * seconds {
				pass(100 * time.Millisecond)
				run.Progress(&tcoderv1.TaskProgress{Lease: run.Lease(), Fraction: float64(i) / float64(10*seconds)})
			}

			return a.Store.Counts()["RenewLeases"]
		}

		require.InDelta(t, 10, tell(20), 1)

		notices, err := c.Store.WatchJob(t.Context(), job.ID)
		require.NoError(t, err)
		tell(2) // until the control plane hears of the watcher
		require.InDelta(t, 4*20, tell(20), 4)
		require.NotEmpty(t, notices)
		run.Finish(t)
	})
}

// TestPushAcrossReplicas guarantees that a task which becomes ready on one
// replica is with an idle worker of another in the same moment: nobody polls.
func TestPushAcrossReplicas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		holder := c.Replica(t, "holder")
		c.Replica(t, "other")

		w := c.Worker(t, "w", []string{"holder"}, slots(2))
		attached(t, "w", holder)

		for _, idle := range []time.Duration{time.Millisecond, time.Second, 47 * time.Minute} {
			pass(idle)

			now := time.Now()
			job := c.Submit(t) // by no replica of the worker's
			run := started(t, w)
			require.Equal(t, job.ID, run.Assignment.GetJobId())
			require.Zero(t, time.Since(now))

			// The end of the probe makes the encode ready, which is pushed, too.
			run.Finish(t)
			started(t, w).Finish(t)
			require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)
			require.Zero(t, time.Since(now))
		}
	})
}
