package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func leaseTests() map[string]func(*env) {
	return map[string]func(*env){
		"OrderIsPriorityTimeIndex": leaseOrder,
		"ClaimIsIdempotent":        leaseClaimIsIdempotent,
		"ClaimAfterAnEmptyAnswer":  leaseClaimAfterEmpty,
		"ClaimIsRefused":           leaseClaimIsRefused,
		"ClaimTakesAtMostMax":      leaseClaimTakesAtMostMax,
		"RenewKeepsThem":           leaseRenewKeepsThem,
		"RenewLeavesFreshOnes":     leaseRenewLeavesFreshOnes,
		"RenewIsOfOneAttempt":      leaseRenewIsOfOneAttempt,
		"FinishUnblocks":           leaseFinishUnblocks,
		"FinishIsIdempotent":       leaseFinishIsIdempotent,
		"FailIsIdempotent":         leaseFailIsIdempotent,
		"ReleaseIsIdempotent":      leaseReleaseIsIdempotent,
		"StaleTokenChangesNothing": leaseStaleTokenChangesNothing,
		"AttemptsAreBounded":       leaseAttemptsAreBounded,
		"BadOrderIsRefused":        leaseBadOrderIsRefused,
	}
}

// Higher priority first, then the older job, then the lower index, also when
// a task comes back.
func leaseOrder(e *env) {
	w := e.attach("w1")
	old := e.planned(w, encode(1), encode(1), encode(1), encode(1), encode(1), encode(1),
		encode(1), encode(1), encode(1), encode(1), encode(1))

	e.advance(e.T, time.Second)

	low, high := newJob(), newJob()
	low.Priority, high.Priority = -100, 100
	e.jobOf(low)
	e.jobOf(high)

	young := e.job()

	order := []string{high.ID + "-0"}
	for _, task := range old.Tasks[1:] {
		order = append(order, task.ID)
	}

	order = append(order, young.ID+"-0", low.ID+"-0")

	for range 2 {
		leases := e.claim(w, 100)
		got := make([]string, 0, len(leases))

		for _, l := range leases {
			got = append(got, l.Ref.TaskID)
			require.Equal(e, pipeline.VerdictAccepted, e.release(w, l.Ref))
		}

		require.Equal(e, order, got)
		e.advance(e.T, time.Second)
	}
}

// A repeated claim gives the same leases, without those that ended meanwhile.
func leaseClaimIsIdempotent(e *env) {
	w := e.attach("w1")

	for range 4 {
		e.job()
	}

	c := pipeline.Claim{RequestID: "request", WorkerID: w.id, Session: w.session, Max: 2, Lease: leaseFor}
	first, err := e.store.ClaimTasks(e.ctx(), c)
	require.NoError(e, err)
	require.Len(e, first.Leases, 2)

	again, err := e.store.ClaimTasks(e.ctx(), c)
	require.NoError(e, err)
	require.Equal(e, first.Leases, again.Leases)

	e.release(w, first.Leases[0].Ref)

	again, err = e.store.ClaimTasks(e.ctx(), c)
	require.NoError(e, err)
	require.Equal(e, first.Leases[1:], again.Leases)
}

// An empty answer binds nothing: the same request may be answered later.
func leaseClaimAfterEmpty(e *env) {
	w := e.attach("w1")
	c := pipeline.Claim{RequestID: "request", WorkerID: w.id, Session: w.session, Max: 2, Lease: leaseFor}
	first, err := e.store.ClaimTasks(e.ctx(), c)
	require.NoError(e, err)
	require.Equal(e, pipeline.Claimed{Leases: first.Leases}, first)
	require.Empty(e, first.Leases)

	e.job()

	again, err := e.store.ClaimTasks(e.ctx(), c)
	require.NoError(e, err)
	require.Len(e, again.Leases, 1)
}

// Nothing is given to a worker that is unknown, in a newer session, cut off or draining.
func leaseClaimIsRefused(e *env) {
	e.job()
	require.Empty(e, e.claim(worker{"nobody", 1}, 1))

	old := e.attach("w1")
	w := e.attach("w1")
	require.Greater(e, w.session, old.session)
	require.Empty(e, e.claim(old, 1))

	require.NoError(e, e.store.DetachWorker(e.ctx(), w.id, w.session, false))
	require.Empty(e, e.claim(w, 1))

	w = e.attach("w1")
	_, err := e.store.DrainWorker(e.ctx(), w.id)
	require.NoError(e, err)
	require.Empty(e, e.claim(w, 1))
	require.Empty(e, e.claim(e.attach("w1"), 1), "a worker that drains goes on to after it reattached")
	require.Len(e, e.claim(e.attach("w2"), 1), 1)
}

func leaseClaimTakesAtMostMax(e *env) {
	w := e.attach("w1")

	for range 5 {
		e.job()
	}

	require.Empty(e, e.claim(w, 0))
	require.Len(e, e.claim(w, 3), 3)
	require.Len(e, e.claim(w, 3), 2)
	require.Empty(e, e.claim(w, 3))
}

// A worker that renews keeps its leases for ever; one that doesn't loses them.
func leaseRenewKeepsThem(e *env) {
	w := e.attach("w1")
	kept, dropped := e.job(), e.job()
	leases := e.claim(w, 2)

	for range 20 {
		require.Empty(e, e.renew(w, pipeline.Renewal{Ref: leases[0].Ref}))
		e.pass(leaseFor / 4)
	}

	require.Equal(e, pipeline.TaskLeased, e.task(kept.ID, 0).State)
	require.Equal(e, pipeline.TaskReady, e.task(dropped.ID, 0).State)
	require.Equal(e, []pipeline.LeaseRef{leases[1].Ref, {TaskID: "nonsense", Attempt: 1}}, e.renew(w,
		pipeline.Renewal{Ref: leases[0].Ref}, pipeline.Renewal{Ref: leases[1].Ref},
		pipeline.Renewal{Ref: pipeline.LeaseRef{TaskID: "nonsense", Attempt: 1}}))
	require.Equal(e, []pipeline.LeaseRef{leases[0].Ref}, e.renew(worker{"nobody", 1}, pipeline.Renewal{Ref: leases[0].Ref}))
}

// A renewal that adds next to nothing isn't written.
func leaseRenewLeavesFreshOnes(e *env) {
	w := e.attach("w1")
	e.job()
	e.sweep()

	l := e.claimOne(w)

	e.advance(e.T, 900*time.Millisecond)
	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: l.Ref}))

	for range 3 {
		require.Zero(e, e.pass(leaseFor/4).Requeued)
	}

	require.Equal(e, 1, e.pass(leaseFor/4-800*time.Millisecond).Requeued, "the lease is as it was claimed")
}

// That a worker holds a task doesn't help an attempt that it has lost before.
func leaseRenewIsOfOneAttempt(e *env) {
	w := e.attach("w1")
	e.job()

	first := e.claimOne(w)
	require.Equal(e, pipeline.VerdictAccepted, e.release(w, first.Ref))

	second := e.claimOne(w)
	require.Equal(e, first.Ref.TaskID, second.Ref.TaskID)

	for range 2 { // fresh, and then one that is written
		require.Equal(e, []pipeline.LeaseRef{first.Ref},
			e.renew(w, pipeline.Renewal{Ref: first.Ref}, pipeline.Renewal{Ref: second.Ref}))
		e.advance(e.T, 3*time.Second)
	}
}

// A task starts when all that it waits for are done, and the run ends with the last.
func leaseFinishUnblocks(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1), encode(1, 0, 1), encode(1, 2))
	require.Equal(e, pipeline.TaskBlocked, e.task(j.ID, 3).State)

	leases := e.claim(w, 9)
	require.Len(e, leases, 2)
	e.finish(w, leases[0].Ref)
	require.Equal(e, pipeline.TaskBlocked, e.task(j.ID, 3).State)
	require.Empty(e, e.claim(w, 9))

	_, last := e.finish(w, leases[1].Ref)
	require.False(e, last)
	require.Equal(e, pipeline.TaskReady, e.task(j.ID, 3).State)
	require.Equal(e, pipeline.TaskBlocked, e.task(j.ID, 4).State)

	_, last = e.finish(w, e.claimOne(w).Ref)
	require.False(e, last)

	_, last = e.finish(w, e.claimOne(w).Ref)
	require.True(e, last)
}

// The repeat of a result gets the first answer, also the one that it was the last.
func leaseFinishIsIdempotent(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	leases := e.claim(w, 2)

	for i, l := range leases {
		for range 2 {
			v, last := e.finish(w, l.Ref)
			require.Equal(e, pipeline.VerdictAccepted, v)
			require.Equal(e, i == 1, last)
		}
	}

	require.Len(e, e.task(j.ID, 1).Attempts, 1)

	n := len(e.events(j.ID))
	require.True(e, e.complete(j.ID, 1))

	v, last := e.finish(w, leases[1].Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.True(e, last)
	require.Len(e, e.events(j.ID), n+2, "playable and completed")
}

func leaseFailIsIdempotent(e *env) {
	w := e.attach("w1")

	for _, class := range []pipeline.FaultClass{pipeline.FaultMachine, pipeline.FaultUnknown, pipeline.FaultInput} {
		j := e.job()
		l := e.claimOne(w)

		require.Equal(e, pipeline.VerdictAccepted, e.fail(w, l.Ref, class, pipeline.ReasonEncodeFailed))
		first := e.get(j.ID)
		require.Equal(e, pipeline.VerdictAccepted, e.fail(w, l.Ref, class, pipeline.ReasonEncodeFailed))
		require.Equal(e, first, e.get(j.ID))
		require.Equal(e, pipeline.VerdictStale, e.release(w, l.Ref), "it ended in another way")
		e.drainQueue(w)
	}
}

func leaseReleaseIsIdempotent(e *env) {
	w := e.attach("w1")
	j := e.job()
	l := e.claimOne(w)

	require.Equal(e, pipeline.VerdictAccepted, e.release(w, l.Ref))
	first := e.get(j.ID)
	require.Equal(e, pipeline.TaskReady, first.Tasks[0].State)
	require.Equal(e, pipeline.OutcomeReleased, first.Tasks[0].Attempts[0].Outcome)
	require.False(e, first.Tasks[0].Attempts[0].Charged)

	require.Equal(e, pipeline.VerdictAccepted, e.release(w, l.Ref))
	require.Equal(e, first, e.get(j.ID))

	next := e.claimOne(w)
	require.Equal(e, 2, next.Ref.Attempt)
	require.Equal(e, pipeline.VerdictAccepted, e.release(w, l.Ref), "still the first answer")
	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: next.Ref}), "and the next attempt runs on")
}

// Whoever doesn't hold the lease, or not any more, changes nothing by any verb.
func leaseStaleTokenChangesNothing(e *env) {
	w, other := e.attach("w1"), e.attach("w2")
	j := e.job()
	l := e.claimOne(w)
	before := e.get(j.ID)

	stale := func(who worker, ref pipeline.LeaseRef) {
		e.Helper()

		v, last := e.finish(who, ref)
		require.Equal(e, pipeline.VerdictStale, v)
		require.False(e, last)
		require.Equal(e, pipeline.VerdictStale, e.fail(who, ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt))
		require.Equal(e, pipeline.VerdictStale, e.release(who, ref))
		require.Equal(e, []pipeline.LeaseRef{ref}, e.renew(who, pipeline.Renewal{Ref: ref, Fraction: 0.9}))
	}

	stale(other, l.Ref)
	stale(w, pipeline.LeaseRef{TaskID: l.Ref.TaskID, Attempt: 2})
	stale(w, pipeline.LeaseRef{TaskID: l.Ref.TaskID, Attempt: 0})
	stale(w, pipeline.LeaseRef{TaskID: j.ID + "-7", Attempt: 1})
	stale(w, pipeline.LeaseRef{TaskID: newID() + "-0", Attempt: 1})
	stale(w, pipeline.LeaseRef{TaskID: "", Attempt: 1})
	require.Equal(e, before, e.get(j.ID))

	// The lease runs out, the same worker gets the task again: its old token is stale.
	e.pass(leaseFor + time.Second)

	next := e.claimOne(w)
	require.Equal(e, 2, next.Ref.Attempt)
	before = e.get(j.ID)
	stale(w, l.Ref)
	require.Equal(e, before, e.get(j.ID))

	v, _ := e.finish(w, next.Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
}

// The history of a task is bounded, its numbers go on.
func leaseAttemptsAreBounded(e *env) {
	w := e.attach("w1")
	j := e.job()
	p := policy()
	p.MaxFailures = 100

	for i := range 20 {
		l := e.claimOne(w)
		require.Equal(e, i+1, l.Ref.Attempt)

		_, err := e.store.FailTask(e.ctx(), pipeline.TaskFault{
			Ref: l.Ref, WorkerID: w.id, Class: pipeline.FaultUnknown, Retry: p,
			Failure: pipeline.Failure{Reason: pipeline.ReasonEncodeFailed, Message: "m"},
		})
		require.NoError(e, err)
		e.pass(p.MaxBackoff)
	}

	attempts := e.task(j.ID, 0).Attempts
	require.Len(e, attempts, 16)
	require.Equal(e, 5, attempts[0].Number)
	require.Equal(e, 20, attempts[15].Number)
}

// A plan whose tasks wait for later ones is our own mistake, and changes nothing.
func leaseBadOrderIsRefused(e *env) {
	w := e.attach("w1")
	j := e.job()
	l := e.claimOne(w)

	for _, after := range []int{0, 1, -1} {
		_, _, err := e.store.FinishTask(e.ctx(), pipeline.TaskResult{
			Ref: l.Ref, WorkerID: w.id, Tasks: []pipeline.NewTask{encode(1, after), encode(1)},
		})
		e.refused(pipeline.ReasonInternal, err)
	}

	require.Equal(e, pipeline.TaskLeased, e.task(j.ID, 0).State)
}
