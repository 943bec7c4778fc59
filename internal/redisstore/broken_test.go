package redisstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// TestBrokenRecords guarantees that a job whose record can't be read is in
// nobody's way: claims pass it by, workers keep the rest of what they hold, the
// sweeper goes on, and the job ends, for all to see.
func TestBrokenRecords(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	ctx := t.Context()

	create := func(id string) {
		_, err := store.CreateJob(ctx, projectJob("p", id), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
		require.NoError(t, err)
	}
	spoil := func(id string) {
		require.NoError(t, store.client.Set(ctx, store.keys.job(id), "\x01p\x00\x02cut short", 0).Err())
	}
	claim := func(session int64, request string) []pipeline.Lease {
		claimed, err := store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: request, WorkerID: "w", Session: session, Max: 9, Lease: time.Minute,
		})
		require.NoError(t, err)

		return claimed.Leases
	}
	sweep := func() []pipeline.Duty {
		swept, err := store.Sweep(ctx, pipeline.SweepRequest{
			Replica: "r", LeaderTTL: time.Minute, Lease: time.Minute, Retry: pipeline.RetryPolicy{MaxLosses: 3}, Retention: time.Hour,
			Attached: []string{"w"},
		})
		require.NoError(t, err)

		return swept.Duties
	}
	aside := func(id string) {
		job, err := store.GetJob(ctx, id)
		require.NoError(t, err)
		require.Equal(t, pipeline.JobFailed, job.State)
		require.Equal(t, pipeline.ReasonInternal, job.Failure.Reason)
		require.Equal(t, "p", job.Project)
	}

	for n := range 4 {
		create(fmt.Sprint("j", n))
	}

	session, _, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w", Slots: 9}, time.Minute)
	require.NoError(t, err)

	// One that waits.
	spoil("j1")

	leases := claim(session, "first")
	require.Len(t, leases, 3)
	sweep()
	aside("j1")

	// One that runs.
	spoil("j2")

	refs := []pipeline.LeaseRef{leases[0].Ref, leases[1].Ref, leases[2].Ref}
	require.Len(t, claim(session, "first"), 2, "of the first answer again")

	session, kept, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w", Slots: 9, Held: refs}, time.Minute)
	require.NoError(t, err)
	require.Len(t, kept, 2)
	sweep()
	aside("j2")

	// One whose lease runs out.
	spoil("j3")

	for range 3 {
		require.NoError(t, store.AdvanceClock(ctx, 25*time.Second))
		sweep()
	}

	sweep()
	aside("j3")

	stats, err := store.PoolStats(ctx)
	require.NoError(t, err)
	require.Zero(t, stats.LeasedTasks)
	require.Equal(t, int64(1), stats.ReadyTasks)

	// One that only its reader can't read.
	create("j4")
	require.NoError(t, store.client.Set(ctx, store.keys.spec("j4"), "\x00\x00\x01p{", 0).Err())
	require.Len(t, claim(session, "second"), 1)
	aside("j4")

	workers, err := store.ListWorkers(ctx)
	require.NoError(t, err)
	require.Len(t, workers[0].Held, 1)

	jobs, err := store.ListJobs(ctx, pipeline.JobFilter{Project: "p", Limit: 9})
	require.NoError(t, err)
	require.Len(t, jobs, 5)
	require.NoError(t, store.DeleteJob(ctx, "j2"))

	// One that was deleted: the others' objects are removed.
	require.NoError(t, store.DeleteJob(ctx, "j1"))
	require.NoError(t, store.client.HSet(ctx, store.keys.purges, "j1", "\x00").Err())

	purges := map[string]error{}

	for _, d := range sweep() {
		if d.Kind == pipeline.DutyPurge {
			purges[d.ID] = d.Unreadable
		}
	}

	require.Len(t, purges, 2)
	require.Error(t, purges["j1"])
	require.NoError(t, purges["j2"])

	// One that doesn't tell which upload its source is.
	_, err = store.CreateUpload(ctx, pipeline.Upload{ID: "u", Project: "p", JobID: "j5"}, projectJob("p", "j5"), time.Hour, pipeline.Admission{})
	require.NoError(t, err)
	_, err = store.CancelJob(ctx, "j5")
	require.NoError(t, err)
	require.NoError(t, store.client.Del(ctx, store.keys.more("j5")).Err())
	require.NoError(t, store.DeleteJob(ctx, "j5"))
	require.Contains(t, sweep(), pipeline.Duty{Kind: pipeline.DutyPurge, ID: "j5", Project: "p"}, "its source stays")
}

// TestLayout guarantees that a control plane doesn't start on records of another
// version, and that its own are claimed once.
func TestLayout(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	ctx := t.Context()

	require.NoError(t, store.ClaimLayout(ctx))
	require.NoError(t, store.ClaimLayout(ctx))
	require.NoError(t, store.client.Set(ctx, store.keys.layout, "0", 0).Err())
	require.ErrorContains(t, store.ClaimLayout(ctx), `records of layout "0"`)
}

// TestMissingTask guarantees that a job one of whose tasks has no record any
// more can be canceled.
func TestMissingTask(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	ctx := t.Context()

	_, err := store.CreateJob(ctx, projectJob("p", "j"), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	session, _, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w", Slots: 9}, time.Minute)
	require.NoError(t, err)
	claimed, err := store.ClaimTasks(ctx, pipeline.Claim{RequestID: "first", WorkerID: "w", Session: session, Max: 1, Lease: time.Minute})
	require.NoError(t, err)
	require.Len(t, claimed.Leases, 1)

	encode := pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Weight: 1}
	v, _, err := store.FinishTask(ctx, pipeline.TaskResult{
		Ref: claimed.Leases[0].Ref, WorkerID: "w", Tasks: []pipeline.NewTask{encode, encode, encode},
	})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, v)

	deleted, err := store.client.Del(ctx, store.keys.prefix+"t:j-00002").Result()
	require.NoError(t, err)
	require.EqualValues(t, 1, deleted)

	j, err := store.CancelJob(ctx, "j")
	require.NoError(t, err)
	require.Equal(t, pipeline.JobCanceled, j.State)
	require.Len(t, j.Tasks, 3, "the probe and two encodes")
}

// TestMissingLeasedTask guarantees that a lease whose task has no record any
// more doesn't stay with its worker, nor counts.
func TestMissingLeasedTask(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	ctx := t.Context()

	_, err := store.CreateJob(ctx, projectJob("p", "j"), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	session, _, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w", Slots: 9}, time.Minute)
	require.NoError(t, err)

	claim := func(request string) pipeline.Lease {
		got, err := store.ClaimTasks(ctx, pipeline.Claim{RequestID: request, WorkerID: "w", Session: session, Max: 1, Lease: time.Minute})
		require.NoError(t, err)
		require.Len(t, got.Leases, 1)

		return got.Leases[0]
	}
	sweep := func() {
		_, err := store.Sweep(ctx, pipeline.SweepRequest{
			Replica: "r", LeaderTTL: time.Hour, Lease: time.Hour, Retry: pipeline.DefaultRetryPolicy(),
		})
		require.NoError(t, err)
	}

	sweep()

	_, _, err = store.FinishTask(ctx, pipeline.TaskResult{
		Ref: claim("first").Ref, WorkerID: "w", Tasks: []pipeline.NewTask{{Kind: pipeline.KindEncode, Output: "hls", Weight: 1}},
	})
	require.NoError(t, err)
	claim("second")
	require.NoError(t, store.client.Del(ctx, store.keys.prefix+"t:j-00001").Err())
	require.NoError(t, store.AdvanceClock(ctx, 2*time.Minute))
	sweep()

	left := redistest.Elements(t, url, tag)
	require.NotContains(t, left, tag+":leases")
	require.NotContains(t, left, tag+":held")
	require.NotContains(t, left[tag+":turns"], "rp")
}

// TestClockSetBack guarantees that a leader whose term ends later than any can,
// because the clock of Redis was set back since, is followed by the next.
func TestClockSetBack(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store := openStore(t, url, tag)
	leads := func(replica string) bool {
		swept, err := store.Sweep(t.Context(), pipeline.SweepRequest{Replica: replica, LeaderTTL: 30 * time.Second, Lease: time.Minute})
		require.NoError(t, err)

		return swept.Leader
	}

	require.NoError(t, store.AdvanceClock(t.Context(), time.Hour))
	require.True(t, leads("a"))
	require.False(t, leads("b"))
	require.NoError(t, store.AdvanceClock(t.Context(), -time.Hour))
	require.True(t, leads("b"))
}
