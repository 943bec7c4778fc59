package celltest_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/worker"
)

func transport(kind worker.Transport) func(*worker.Config) {
	return func(cfg *worker.Config) { cfg.Transport = kind }
}

func isSync(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/Sync") }

// TestProxyCutsStreams guarantees that a worker does its work behind proxies
// that streams don't live behind: it falls back to calls by itself, its task
// goes on meanwhile, and it tries a stream again now and then.
func TestProxyCutsStreams(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		proxy  celltest.Proxy
		within time.Duration // the worker makes calls
	}{
		"cut after three seconds": {celltest.Proxy{Cut: 3 * time.Second}, 10 * time.Second},
		"buffers requests":        {celltest.Proxy{Buffer: true}, 25 * time.Second},
		"HTTP/1.1 alone":          {celltest.Proxy{HTTP1: true}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := celltest.New()
				a := c.Replica(t, "a")

				var streams, calls atomic.Int32

				test.proxy.Called = func(r *http.Request) {
					if isSync(r) {
						calls.Add(1)
					} else {
						streams.Add(1)
					}
				}
				c.Proxy(t, "front", "a", test.proxy)
				w := c.Worker(t, "w", []string{"front"})
				job := c.Submit(t)

				run := started(t, w)
				pass(test.within)
				require.Positive(t, calls.Load(), "it makes calls")

				tried := streams.Load()

				pass(time.Minute)
				require.Equal(t, tried, streams.Load(), "it leaves streams alone for a while")
				require.NoError(t, run.Context.Err())
				run.Finish(t)
				started(t, w).Finish(t)
				require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)
				pass(10 * time.Minute)
				require.Greater(t, streams.Load(), tried, "it tries a stream again")

				for task := range 2 {
					checkWork(t, attempts(t, c, job, task), test.proxy.Buffer)
				}

				attached(t, "w", a)
			})
		})
	}
}

// checkWork checks that a task was done by one attempt. A proxy that buffers
// may pass a hello on just when the worker gives that stream up, since either
// the end or the reset of a stream may come first: then an attempt before it
// may have gone to nobody, and was handed back without a charge.
func checkWork(t *testing.T, made []pipeline.Attempt, buffered bool) {
	t.Helper()

	last := len(made) - 1
	require.Equal(t, pipeline.OutcomeDone, made[last].Outcome)

	if !buffered {
		require.Zero(t, last)
	}

	require.LessOrEqual(t, last, 1)

	for _, lost := range made[:last] {
		require.Equal(t, pipeline.OutcomeReleased, lost.Outcome)
		require.False(t, lost.Charged)
	}
}

// TestStreamIsTriedAgain guarantees that a worker which makes calls goes back
// to a stream once streams live.
func TestStreamIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fixed, streaming atomic.Bool

		c := celltest.New()
		c.Replica(t, "a")
		c.Proxy(t, "front", "a", celltest.Proxy{
			Called: func(r *http.Request) {
				if isSync(r) {
					streaming.Store(false)
				} else {
					streaming.Store(true)
				}
			},
			Answered: func(r *http.Request) bool { return isSync(r) || fixed.Load() },
		})
		w := c.Worker(t, "w", []string{"front"})
		pass(time.Minute)
		require.False(t, streaming.Load())
		fixed.Store(true)
		pass(10 * time.Minute)
		require.True(t, streaming.Load())

		now := time.Now()
		c.Submit(t)
		started(t, w).Finish(t)
		require.Zero(t, time.Since(now))
	})
}

// TestSync guarantees that calls do all that a stream does: push, renewal,
// progress, results, cancel, drain.
func TestSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"}, transport(worker.TransportSync), slots(2))
		attached(t, "w", a)
		pass(time.Hour)

		now := time.Now()
		job := c.Submit(t)
		started(t, w).Finish(t)

		run := started(t, w)
		require.Zero(t, time.Since(now), "a call that waits is answered at once")
		pass(2 * time.Minute)
		require.NoError(t, run.Context.Err())
		run.Progress(&tcoderv1.TaskProgress{Lease: run.Lease(), Fraction: 0.5})
		pass(2 * celltest.Heartbeat)
		require.InDelta(t, 50, c.Job(t, job.ID).Progress.Percent, 0.1)

		canceled := c.Submit(t)
		other := started(t, w)
		now = time.Now()
		_, err := c.Store.CancelJob(t.Context(), canceled.ID)
		require.NoError(t, err)
		<-other.Context.Done()
		require.LessOrEqual(t, time.Since(now), time.Second)

		run.Finish(t)
		require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)

		_, err = c.API("a").DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: "w"})
		require.NoError(t, err)
		require.NoError(t, <-w.Ended)
		synctest.Wait()
		require.Eventually(t, func() bool { return len(a.Attached()) == 0 }, time.Minute, time.Second)
	})
}

// TestSyncGoesRound guarantees that a worker which makes calls does its work
// behind a proxy that takes each call to another replica, and that its calls
// stay few.
func TestSyncGoesRound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		c.Replica(t, "a")
		c.Replica(t, "b")

		var calls atomic.Int32

		c.Proxy(t, "front", "a", celltest.Proxy{
			Route: func(*http.Request) string { return []string{"a", "b"}[calls.Add(1)%2] },
		})
		w := c.Worker(t, "w", []string{"front"}, transport(worker.TransportSync))

		pass(time.Hour)
		require.LessOrEqual(t, calls.Load(), int32(2*time.Hour/celltest.Heartbeat))

		job := c.Submit(t)
		started(t, w).Finish(t)

		run := started(t, w)
		pass(2 * time.Minute)
		require.NoError(t, run.Context.Err())
		run.Progress(&tcoderv1.TaskProgress{Lease: run.Lease(), Fraction: 0.5})
		pass(2 * celltest.Heartbeat)
		require.InDelta(t, 50, c.Job(t, job.ID).Progress.Percent, 0.1)
		run.Finish(t)
		require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)

		// A task may be claimed by the replica that the worker has just left.
		for task := range 2 {
			made := attempts(t, c, job, task)
			require.Less(t, len(made), 5)

			for _, attempt := range made {
				require.False(t, attempt.Charged)
			}
		}
	})
}

// TestSyncGoesRoundBeside guarantees that behind such a proxy a worker gets the
// answer to what its control plane does beside the call that asked for it.
func TestSyncGoesRoundBeside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		c.Replica(t, "a")
		c.Replica(t, "b")

		var calls atomic.Int32

		c.Proxy(t, "front", "a", celltest.Proxy{
			Route: func(*http.Request) string { return []string{"a", "b"}[calls.Add(1)%2] },
		})
		w := c.Worker(t, "w", []string{"front"}, transport(worker.TransportSync))
		c.Submit(t)
		started(t, w).Finish(t)

		run := started(t, w)
		answer, err := run.Parts(run.Context, largeFile(), &tcoderv1.PartsStep{})
		require.NoError(t, err)
		require.Equal(t, "upload", answer.GetParts().GetUploadId())
		require.Less(t, c.Out.Begun.Load(), int32(5), "the task may have been claimed by the replica that the worker has just left")
	})
}

// TestSyncHandover guarantees that a worker which makes calls keeps its attempt
// when its control plane stops, and when it dies.
func TestSyncHandover(t *testing.T) {
	t.Parallel()

	for name, end := range map[string]func(*celltest.Replica){"stops": (*celltest.Replica).Stop, "dies": (*celltest.Replica).Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := celltest.New()
				a, b := c.Replica(t, "a"), c.Replica(t, "b")
				w := c.Worker(t, "w", []string{"a", "b"}, transport(worker.TransportSync))
				first := attached(t, "w", a, b)
				job := c.Submit(t)
				run := started(t, w)
				pass(11 * time.Second)
				end(first)

				if first == a {
					attached(t, "w", b)
				} else {
					attached(t, "w", a)
				}

				pass(2 * celltest.Lease)
				run.Finish(t)
				started(t, w).Finish(t)
				require.Equal(t, pipeline.JobCompleted, c.Ended(t, job.ID).State)
				require.Len(t, attempts(t, c, job, 0), 1)
			})
		})
	}
}

// TestSyncLostAnswers guarantees that each message counts once, in both
// directions, though every third answer is lost after the call was served.
func TestSyncLostAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const jobs = 40

		c := celltest.New()
		a := c.Replica(t, "a")

		var answers, lost atomic.Int32

		c.Proxy(t, "front", "a", celltest.Proxy{HTTP1: true, Answered: func(*http.Request) bool {
			if answers.Add(1)%3 != 0 {
				return true
			}

			lost.Add(1)

			return false
		}})

		w := c.Worker(t, "w", []string{"front"}, transport(worker.TransportSync), slots(4))
		attached(t, "w", a)

		ids := make([]string, jobs)
		for i := range ids {
			ids[i] = c.Submit(t).ID
		}

		ran := map[string]int{}

		for range 2 * jobs {
			run := started(t, w)
			ran[run.Lease().GetTaskId()]++
			pass(50 * time.Millisecond)
			run.Finish(t)
		}

		for _, id := range ids {
			job := c.Ended(t, id)
			require.Equal(t, pipeline.JobCompleted, job.State)

			for _, task := range job.Tasks {
				require.Len(t, task.Attempts, 1)
				require.Equal(t, 1, ran[task.ID])
			}

			requireEvents(t, c, job)
		}

		require.Equal(t, 1, a.Store.Counts()["AttachWorker"], "it is one session")
		require.Greater(t, lost.Load(), int32(20))
	})
}

// TestSyncFault guarantees that a fault told by calls is retried as one told by
// a stream.
func TestSyncFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"}, transport(worker.TransportSync))
		job := c.Submit(t)
		started(t, w).Fail(errors.New("unexpected"))

		again := started(t, w)
		require.EqualValues(t, 2, again.Lease().GetAttempt())
		require.True(t, attempts(t, c, job, 0)[0].Charged)
		again.Finish(t)
	})
}
