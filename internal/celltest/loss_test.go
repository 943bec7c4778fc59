package celltest_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestResultResent guarantees that a result counts once, however often its
// acknowledgement is lost: with the answer of the store, with the stream, or
// with the control plane.
func TestResultResent(t *testing.T) {
	t.Parallel()

	for name, lose := range map[string]func(c *celltest.Cell, a, b *celltest.Replica){
		"the store's answer is lost": func(_ *celltest.Cell, a, _ *celltest.Replica) {
			a.Store.LoseAnswer(twice("FinishTask"))
		},
		"the store is away for a minute": func(_ *celltest.Cell, a, b *celltest.Replica) {
			until := time.Now().Add(time.Minute)
			away := func(string) error {
				if time.Now().Before(until) {
					return unavailable()
				}

				return nil
			}
			a.Store.Fail(away)
			b.Store.Fail(away)
		},
		"the stream is cut before the worker hears": func(c *celltest.Cell, a, _ *celltest.Replica) {
			var once atomic.Bool

			a.Store.LoseAnswer(func(method string) error {
				if method == "FinishTask" && once.CompareAndSwap(false, true) {
					c.Network.Cut("", "a")
				}

				return nil
			})
		},
		"the acknowledgement vanishes": func(c *celltest.Cell, a, _ *celltest.Replica) {
			var once atomic.Bool

			a.Store.LoseAnswer(func(method string) error {
				if method == "FinishTask" && once.CompareAndSwap(false, true) {
					c.Network.Lose("", "a")
				}

				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := celltest.New()
				a := c.Replica(t, "a")
				b := c.Replica(t, "b")
				w := c.Worker(t, "w", []string{"a"})
				attached(t, "w", a)
				job := c.Submit(t)
				probe := started(t, w)

				lose(c, a, b)
				probe.Finish(t)
				started(t, w).Finish(t)

				ended := c.Ended(t, job.ID)
				require.Equal(t, pipeline.JobCompleted, ended.State)
				require.Len(t, ended.Tasks, 2)
				require.Len(t, ended.Tasks[0].Attempts, 1)
				for _, other := range ended.Tasks[1].Attempts {
					require.False(t, other.Charged, "its assignment may be lost with the acknowledgement")
				}

				requireEvents(t, c, job)
				require.Empty(t, w.Runs)
			})
		})
	}
}

// requireEvents requires that a job of two tasks went through each of its
// states once.
func requireEvents(t *testing.T, c *celltest.Cell, job pipeline.Job) {
	t.Helper()

	events, err := c.Store.JobEvents(t.Context(), job.ID, 0)
	require.NoError(t, err)

	kinds := map[pipeline.EventType]int{}
	for _, e := range events {
		kinds[e.Type]++
	}

	require.Equal(t, 1, kinds[pipeline.EventStarted])
	require.Equal(t, 1, kinds[pipeline.EventPlanned])
	require.Equal(t, 2, kinds[pipeline.EventTaskDone])
	require.Equal(t, 1, kinds[pipeline.EventCompleted])
}

// TestLostAssignment guarantees that a task whose assignment is lost on its way
// is given out again, uncharged, as soon as its worker is heard without it.
func TestLostAssignment(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		lose   func(c *celltest.Cell)
		within time.Duration
	}{
		"the stream is cut while the claim is made": {func(c *celltest.Cell) { c.Network.Cut("w", "") }, time.Second},
		// The worker finds out with its pings, or for want of answers.
		"the stream is half-open": {func(c *celltest.Cell) { c.Network.Lose("w", "") }, celltest.Lease},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := celltest.New()
				a := c.Replica(t, "a")
				w := c.Worker(t, "w", []string{"a"})
				attached(t, "w", a)

				var once atomic.Bool

				a.Store.LoseAnswer(func(method string) error {
					if method == "ClaimTasks" && once.CompareAndSwap(false, true) {
						test.lose(c)
						pass(time.Millisecond) // both ends notice, if they can
					}

					return nil
				})

				now := time.Now()
				job := c.Submit(t)
				run := started(t, w)
				require.Less(t, time.Since(now), test.within)
				require.EqualValues(t, 2, run.Lease().GetAttempt())

				first := attempts(t, c, job, 0)[0]
				require.Equal(t, pipeline.OutcomeReleased, first.Outcome)
				require.False(t, first.Charged)
				run.Finish(t)
			})
		})
	}
}

// TestClaimAnswerLost guarantees that a claim whose answer is lost is asked
// again, and leases nothing twice.
func TestClaimAnswerLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"})
		attached(t, "w", a)
		a.Store.Counts()
		a.Store.LoseAnswer(twice("ClaimTasks"))

		job := c.Submit(t)
		run := started(t, w)
		require.EqualValues(t, 1, run.Lease().GetAttempt())
		require.Equal(t, 3, a.Store.Counts()["ClaimTasks"])
		require.Len(t, attempts(t, c, job, 0), 1)
		run.Finish(t)
	})
}

// twice loses the first two answers of a method.
func twice(method string) func(string) error {
	var lost atomic.Int32

	return func(called string) error {
		if called == method && lost.Add(1) <= 2 {
			return unavailable()
		}

		return nil
	}
}

func unavailable() error {
	return &pipeline.Error{Reason: pipeline.ReasonStateUnavailable, Message: "The store can't be reached."}
}
