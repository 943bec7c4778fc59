package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func workerTests() map[string]func(*env) {
	return map[string]func(*env){
		"KeepsEveryField":        workerKeepsEveryField,
		"AttachKeepsWhatItHolds": workerAttachKeeps,
		"AttachReleasesTheRest":  workerAttachReleases,
		"DetachKeepsTheLeases":   workerDetachKeepsTheLeases,
		"GoneIsForgotten":        workerGoneIsForgotten,
		"DrainIsKept":            workerDrainIsKept,
		"LeaveNeedsEmptyHands":   workerLeaveNeedsEmptyHands,
		"SilentLeavesTheList":    workerSilentLeavesTheList,
		"StatsCount":             workerStatsCount,
	}
}

func (e *env) workers() []pipeline.Worker {
	e.Helper()

	workers, err := e.store.ListWorkers(e.ctx())
	require.NoError(e, err)

	return workers
}

func workerKeepsEveryField(e *env) {
	w := pipeline.Worker{
		ID: "w1", MachineID: "m1", Version: "1.2.3", Slots: 3, CPUs: 8,
		Encoders: []media.VideoCodec{media.H264, media.HEVC},
	}
	session, kept, err := e.store.AttachWorker(e.ctx(), w, leaseFor)
	require.NoError(e, err)
	require.Empty(e, kept)

	e.job()

	l := e.claimOne(worker{"w1", session})
	got := e.workers()
	require.Len(e, got, 1)

	w.Session, w.Attached, w.FirstSeen, w.LastSeen = session, true, got[0].FirstSeen, got[0].LastSeen
	w.Held = []pipeline.LeaseRef{l.Ref}
	require.Equal(e, w, got[0])
	require.False(e, got[0].FirstSeen.IsZero())

	e.advance(e.T, time.Second)
	e.renew(worker{"w1", session}, pipeline.Renewal{Ref: l.Ref})

	again := e.workers()[0]
	require.Equal(e, got[0].FirstSeen, again.FirstSeen)
	require.True(e, again.LastSeen.After(got[0].LastSeen))
}

// A worker that comes back goes on with what it holds.
func workerAttachKeeps(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	leases := e.claim(w, 2)
	e.advance(e.T, leaseFor-time.Second)

	session, kept, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{
		ID: "w1", Held: []pipeline.LeaseRef{
			leases[1].Ref, leases[0].Ref,
			{TaskID: j.ID + "-9", Attempt: 1},
			{TaskID: "no task's", Attempt: 1},
			{TaskID: leases[1].Ref.TaskID, Attempt: 2},
		},
	}, leaseFor)
	require.NoError(e, err)
	require.Greater(e, session, w.session)
	require.Len(e, kept, 2)

	for _, l := range kept {
		require.Contains(e, []pipeline.LeaseRef{leases[0].Ref, leases[1].Ref}, l.Ref)
		require.Equal(e, j.Spec, l.Job.Spec)
		require.NotNil(e, l.Job.Plan)
		require.WithinDuration(e, leases[0].Expires.Add(leaseFor-time.Second), l.Expires, 2*time.Second)
	}

	e.advance(e.T, leaseFor/4)
	e.sweep() // after a pause; and then with patience
	require.Zero(e, e.pass(leaseFor/2).Requeued)
}

// What a worker was given and doesn't hold was lost on the way.
func workerAttachReleases(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	leases := e.claim(w, 2)

	w = e.attach("w1", leases[1].Ref)

	got := e.get(j.ID)
	require.Equal(e, pipeline.TaskReady, got.Tasks[1].State)
	require.Equal(e, pipeline.OutcomeReleased, got.Tasks[1].Attempts[0].Outcome)
	require.False(e, got.Tasks[1].Attempts[0].Charged)
	require.Equal(e, pipeline.TaskLeased, got.Tasks[2].State)

	v, _ := e.finish(w, leases[0].Ref)
	require.Equal(e, pipeline.VerdictStale, v)
	require.Equal(e, 2, e.claimOne(w).Ref.Attempt)

	// Another attempt of the same task is not what it holds.
	e.attach("w1", pipeline.LeaseRef{TaskID: leases[1].Ref.TaskID, Attempt: 2})
	require.Equal(e, pipeline.TaskReady, e.task(j.ID, 2).State)
}

// A cut stream costs nothing by itself, and the cut of an old one nothing at all.
func workerDetachKeepsTheLeases(e *env) {
	old := e.attach("w1")
	w := e.attach("w1")
	j := e.job()
	l := e.claimOne(w)

	require.NoError(e, e.store.DetachWorker(e.ctx(), "w1", old.session, true))
	require.True(e, e.workers()[0].Attached)
	require.NoError(e, e.store.DetachWorker(e.ctx(), "w1", w.session, false))
	require.False(e, e.workers()[0].Attached)
	require.Equal(e, pipeline.TaskLeased, e.task(j.ID, 0).State)
	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: l.Ref}))
	require.NoError(e, e.store.DetachWorker(e.ctx(), "nobody", 1, true))
}

func workerGoneIsForgotten(e *env) {
	w := e.attach("w1")

	for range 2 {
		require.NoError(e, e.store.DetachWorker(e.ctx(), "w1", w.session, true))
		require.Empty(e, e.workers())
	}

	e.renew(w)
	require.Empty(e, e.workers(), "a late heartbeat doesn't bring it back")

	// One that says it is gone but holds a lease is kept until the lease is settled.
	w = e.attach("w1")
	e.job()
	e.claimOne(w)
	require.NoError(e, e.store.DetachWorker(e.ctx(), "w1", w.session, true))
	require.Len(e, e.workers(), 1)
	require.Equal(e, 1, e.pass(leaseFor+time.Second).Requeued)
}

func workerDrainIsKept(e *env) {
	_, err := e.store.DrainWorker(e.ctx(), "w1")
	e.refused(pipeline.ReasonWorkerNotFound, err)

	e.attach("w1")

	for range 2 {
		w, err := e.store.DrainWorker(e.ctx(), "w1")
		require.NoError(e, err)
		require.Equal(e, "w1", w.ID)
		require.True(e, w.Draining)
	}

	e.attach("w1")
	require.True(e, e.workers()[0].Draining)
}

// A worker may exit only if it holds nothing, and is given nothing from then on.
func workerLeaveNeedsEmptyHands(e *env) {
	leave := func(w worker) bool {
		ok, err := e.store.LeaveWorker(e.ctx(), w.id, w.session, 0)
		require.NoError(e, err)

		return ok
	}
	old := e.attach("w1")
	w := e.attach("w1")
	e.job()

	l := e.claimOne(w)
	require.False(e, leave(w))
	require.False(e, e.workers()[0].Draining)
	e.release(w, l.Ref)
	require.False(e, leave(old))
	require.True(e, leave(w))
	require.True(e, leave(w))
	require.True(e, e.workers()[0].Draining)
	require.Empty(e, e.claim(w, 1))
	require.True(e, leave(worker{"nobody", 1}))
}

func workerSilentLeavesTheList(e *env) {
	w := e.attach("w1")
	e.attach("w0")
	require.Equal(e, "w0", e.workers()[0].ID)
	e.advance(e.T, 59*time.Second)
	e.renew(w)
	require.Len(e, e.workers(), 2)
	e.advance(e.T, 2*time.Second)
	require.Len(e, e.workers(), 1)
	require.Equal(e, "w1", e.workers()[0].ID)
}

func workerStatsCount(e *env) {
	stats := func() pipeline.PoolStats {
		s, err := e.store.PoolStats(e.ctx())
		require.NoError(e, err)

		return s
	}
	require.Equal(e, pipeline.PoolStats{}, stats())

	w := e.attach("w1")
	e.job()
	e.advance(e.T, 10*time.Second)

	important := newJob()
	important.Priority = 5
	e.jobOf(important)

	s := stats()
	require.Equal(e, int64(2), s.ReadyTasks)
	require.InDelta(e, 10, s.OldestReady.Seconds(), 5, "the oldest isn't the next")

	l := e.claimOne(w)
	require.Equal(e, important.ID, l.Job.ID)
	require.Equal(e, int64(1), stats().LeasedTasks)
	e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)

	s = stats()
	require.Equal(e, int64(1), s.ReadyTasks)
	require.Zero(e, s.LeasedTasks)
	require.Equal(e, int64(1), s.DelayedTasks)
}
