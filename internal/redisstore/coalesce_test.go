package redisstore

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

const patience = 15 * time.Second

func openStore(t *testing.T, url, tag string) *Store {
	t.Helper()

	store, err := New(Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	return store
}

// hold makes a verb's requests wait as if a call were in flight, and returns
// how many do and what lets them go, together.
func hold(t tester, s *Store, verb string) (waiting func(n int), release func()) {
	t.Helper()

	c := s.batches[verb]

	// Those of the call before may have been answered while it still counts.
	take := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		if c.flights > 0 {
			return false
		}

		c.flights = 1

		return true
	}
	for deadline := time.Now().Add(patience); !take(); runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "a call of %s is in flight", verb)
	}

	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()

		return len(c.waiting)
	}

	waiting = func(n int) {
		t.Helper()

		for deadline := time.Now().Add(patience); count() != n; runtime.Gosched() {
			require.True(t, time.Now().Before(deadline), "%d of %d wait", count(), n)
		}
	}

	return waiting, func() { c.pass(t.Context()) }
}

// tester is a test, or a case of one.
type tester interface {
	require.TestingT
	Helper()
	Context() context.Context
}

func projectJob(project, id string) pipeline.Job {
	return pipeline.Job{ID: id, Project: project, Source: pipeline.Source{ObjectKey: "in/" + id}}
}

// TestCoalescedAnswers guarantees that each request of one call gets its own
// answer: refusals, replays and successes side by side, and requests that
// concern each other as if they had come one after the other.
func TestCoalescedAnswers(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	waiting, release := hold(t, store, "create_job")

	type answer struct {
		job pipeline.Job
		err error
	}

	answers := make([]answer, 0, 8)
	mu := sync.Mutex{}

	var wg sync.WaitGroup

	create := func(j pipeline.Job, a pipeline.Admission) int {
		mu.Lock()
		n := len(answers)
		answers = append(answers, answer{})
		mu.Unlock()
		wg.Go(func() {
			job, err := store.CreateJob(t.Context(), j, pipeline.NewTask{Kind: pipeline.KindProbe}, a)

			mu.Lock()
			defer mu.Unlock()

			answers[n] = answer{job, err}
		})
		waiting(n + 1)

		return n
	}
	limit := pipeline.Admission{WaitingLimit: 2}
	key := pipeline.Admission{IdempotencyKey: "k", Fingerprint: "f", KeyTTL: time.Hour}
	other := key
	other.Fingerprint = "g"
	gone := projectJob("b", "gone")
	gone.Source.UploadID = "none"

	a1, a2 := create(projectJob("a", "a1"), limit), create(projectJob("a", "a2"), limit)
	a3, again := create(projectJob("a", "a3"), limit), create(projectJob("a", "a1"), limit)
	b1, b2 := create(projectJob("b", "b1"), key), create(projectJob("b", "b2"), key)
	b3, lost := create(projectJob("b", "b3"), other), create(gone, pipeline.Admission{})

	release()
	wg.Wait()

	for n, id := range map[int]string{a1: "a1", a2: "a2", again: "a1", b1: "b1", b2: "b1"} {
		require.NoError(t, answers[n].err)
		require.Equal(t, id, answers[n].job.ID)
	}

	for n, reason := range map[int]pipeline.Reason{
		a3: pipeline.ReasonQueueFull, b3: pipeline.ReasonIdempotencyKeyReused, lost: pipeline.ReasonObjectNotFound,
	} {
		require.Equal(t, reason, pipeline.ReasonOf(answers[n].err))
	}

	stats, err := store.PoolStats(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(3), stats.ReadyTasks)
}

// TestCoalescedRepeats guarantees that repeats of one request in the same call
// take effect once, for every verb.
func TestCoalescedRepeats(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	ctx := t.Context()

	both := func(verb string, f func(n int)) {
		waiting, release := hold(t, store, verb)

		var wg sync.WaitGroup
		for n := range 2 {
			wg.Go(func() { f(n) })
			waiting(n + 1)
		}

		release()
		wg.Wait()
	}

	session, _, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w"}, time.Minute)
	require.NoError(t, err)

	both("create_job", func(int) {
		_, err := store.CreateJob(ctx, projectJob("p", "j"), pipeline.NewTask{Kind: pipeline.KindEncode, Weight: 1},
			pipeline.Admission{})
		if err != nil {
			t.Error(err)
		}
	})

	claims := make([]pipeline.Claimed, 2)
	both("claim_tasks", func(n int) {
		var err error

		claims[n], err = store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: "r", WorkerID: "w", Session: session, Max: 5, Lease: time.Minute,
		})
		if err != nil {
			t.Error(err)
		}
	})
	require.Equal(t, claims[0], claims[1])
	again, err := store.ClaimTasks(ctx, pipeline.Claim{
		RequestID: "r", WorkerID: "w", Session: session, Max: 5, Lease: time.Minute,
	})
	require.NoError(t, err)
	require.Len(t, again.Leases, 1)
	require.Equal(t, claims[0].Leases, again.Leases)

	ref := again.Leases[0].Ref

	both("renew_leases", func(n int) {
		got, err := store.RenewLeases(ctx, "w", time.Minute, []pipeline.Renewal{{Ref: ref, Fraction: 0.1 * float64(n+1)}})
		if err != nil || len(got.Lost) > 0 {
			t.Error(got, err)
		}
	})
	both("finish_task", func(int) {
		v, last, err := store.FinishTask(ctx, pipeline.TaskResult{Ref: ref, WorkerID: "w"})
		if err != nil || v != pipeline.VerdictAccepted || !last {
			t.Error(v, last, err)
		}
	})
	both("complete_job", func(int) {
		done, err := store.CompleteJob(ctx, "j", 1, nil)
		if err != nil || !done {
			t.Error(done, err)
		}
	})

	events, err := store.JobEvents(ctx, "j", 0)
	require.NoError(t, err)
	require.Len(t, events, 7)

	stats, err := store.PoolStats(ctx)
	require.NoError(t, err)
	require.Equal(t, pipeline.PoolStats{}, stats)
}

// TestCoalescedFault guarantees that a record that no script can work on
// harms whoever asks for it alone.
func TestCoalescedFault(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	ctx := t.Context()

	for n := range 3 {
		_, err := store.CreateJob(ctx, projectJob("p", fmt.Sprint("j", n)), pipeline.NewTask{Kind: pipeline.KindProbe},
			pipeline.Admission{})
		require.NoError(t, err)
	}

	session, _, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w"}, time.Minute)
	require.NoError(t, err)
	claimed, err := store.ClaimTasks(ctx, pipeline.Claim{
		RequestID: "r", WorkerID: "w", Session: session, Max: 3, Lease: time.Minute,
	})
	require.NoError(t, err)
	require.Len(t, claimed.Leases, 3)
	require.NoError(t, store.client.Set(ctx, store.keys.job("j1"), "not a hash", 0).Err())

	waiting, release := hold(t, store, "finish_task")
	errs := make([]error, 3)

	var wg sync.WaitGroup

	for n, l := range claimed.Leases {
		wg.Go(func() {
			_, _, errs[n] = store.FinishTask(ctx, pipeline.TaskResult{Ref: l.Ref, WorkerID: "w"})
		})
		waiting(n + 1)
	}

	release()
	wg.Wait()
	require.NoError(t, errs[0])
	require.Equal(t, pipeline.ReasonInternal, pipeline.ReasonOf(errs[1]))
	require.NoError(t, errs[2])
}

// TestCoalescedContext guarantees that a caller whose context ends stops
// waiting, that its request isn't sent if it still waited, and that the
// others' are.
func TestCoalescedContext(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	waiting, release := hold(t, store, "create_job")
	errs := make(chan error, 2)

	var wg sync.WaitGroup

	create := func(ctx context.Context, id string) {
		wg.Go(func() {
			_, err := store.CreateJob(ctx, projectJob("p", id), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
			errs <- err
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	create(ctx, "leaves")
	waiting(1)
	create(t.Context(), "stays")
	waiting(2)
	cancel(nil)
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(<-errs))

	release()
	wg.Wait()
	require.NoError(t, <-errs)

	_, err := store.GetJob(t.Context(), "stays")
	require.NoError(t, err)
	_, err = store.GetJob(t.Context(), "leaves")
	require.Equal(t, pipeline.ReasonJobNotFound, pipeline.ReasonOf(err))
}

// TestCoalescedCrowd guarantees that a crowd doesn't wait for the call in
// flight, and that what is left of it does.
func TestCoalescedCrowd(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	waiting, release := hold(t, store, "create_job")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	create := func(wg *sync.WaitGroup, id string) {
		wg.Go(func() {
			_, err := store.CreateJob(ctx, projectJob("p", id), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
			if err != nil {
				t.Error(err)
			}
		})
	}

	var together, alone sync.WaitGroup
	for n := range crowd {
		create(&together, fmt.Sprint("j", n))
	}

	together.Wait()
	create(&alone, "late")
	waiting(1)
	release()
	alone.Wait()

	stats, err := store.PoolStats(ctx)
	require.NoError(t, err)
	require.EqualValues(t, crowd+1, stats.ReadyTasks)
}

// TestCoalescedOutage guarantees that a Redis that dies under a crowd of
// callers leaves each with an answer, and that what was accepted is there
// when it is back; scripts load again by themselves.
func TestCoalescedOutage(t *testing.T) {
	t.Parallel()

	server := redistest.Start(t, redistest.Options{FsyncAlways: true})
	store := openStore(t, server.URL(), "")

	const callers = 100

	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		accepted []string
		refused  int
		down     = make(chan struct{})
	)

	for n := range callers {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("j%d-%d", n, i)
				_, err := store.CreateJob(t.Context(), projectJob("p", id), pipeline.NewTask{Kind: pipeline.KindProbe},
					pipeline.Admission{})

				mu.Lock()
				if err == nil {
					accepted = append(accepted, id)
				} else {
					refused++

					if reason := pipeline.ReasonOf(err); reason != pipeline.ReasonStateUnavailable {
						t.Errorf("%s: %v", reason, err)
					}
				}

				if len(accepted) == 2*callers {
					close(down)

					accepted = append(accepted, id) // so that it is closed once
				}
				mu.Unlock()

				if err != nil {
					return
				}
			}
		})
	}

	<-down
	server.Kill()
	wg.Wait()
	require.Equal(t, callers, refused)
	server.Restart()
	require.Eventually(t, func() bool { return store.Ping(t.Context()) == nil }, patience, 10*time.Millisecond)

	for _, id := range accepted {
		_, err := store.GetJob(t.Context(), id)
		require.NoError(t, err, id)
	}

	_, err := store.CreateJob(t.Context(), projectJob("p", "after"), pipeline.NewTask{Kind: pipeline.KindProbe},
		pipeline.Admission{})
	require.NoError(t, err)
}

// TestCoalescedClose guarantees that Close answers who waits, refuses who
// comes later, and leaves no goroutine (TestMain looks).
func TestCoalescedClose(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store, err := New(Config{URL: url, Tag: tag})
	require.NoError(t, err)

	var wg sync.WaitGroup

	started := make(chan struct{}, 20)

	for n := range 20 {
		wg.Go(func() {
			for i := 0; ; i++ {
				_, err := store.CreateJob(t.Context(), projectJob("p", fmt.Sprint(n, "-", i)),
					pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
				if err != nil {
					if pipeline.ReasonOf(err) != pipeline.ReasonStateUnavailable {
						t.Error(err)
					}

					return
				}

				if i == 0 {
					started <- struct{}{}
				}
			}
		})
	}

	for range 20 {
		<-started
	}

	require.NoError(t, store.Close())
	wg.Wait()
	_, err = store.CreateJob(t.Context(), projectJob("p", "late"), pipeline.NewTask{}, pipeline.Admission{})
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
}
