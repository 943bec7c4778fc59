package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// raceTests fix the one outcome of each race, in both orders.
func raceTests() map[string]func(*env) {
	return map[string]func(*env){
		"CancelThenFinish":         raceCancelThenFinish,
		"FinishThenCancel":         raceFinishThenCancel,
		"CompleteThenCancel":       raceCompleteThenCancel,
		"RetryThenLateResult":      raceRetryThenLateResult,
		"DeleteThenLateWrites":     raceDeleteThenLateWrites,
		"LostThenLateResult":       raceLostThenLateResult,
		"RanOutButNotTakenBack":    raceRanOutButNotTakenBack,
		"OvertimeThenLateResult":   raceOvertimeThenLateResult,
		"ResultThenOvertime":       raceResultThenOvertime,
		"DeadTaskEndsTheOthers":    raceDeadTaskEndsTheOthers,
		"CancelThenCompleteUpload": raceCancelThenCompleteUpload,
		"CompleteUploadThenExpire": raceCompleteUploadThenExpire,
		"CancelThenClaim":          raceCancelThenClaim,
		"RetryThenLatePublish":     raceRetryThenLatePublish,
		"DeleteOfARunningJob":      raceDeleteOfARunningJob,
	}
}

// Cancel first: the result is stale and the job stays canceled.
func raceCancelThenFinish(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)

	canceled := e.get(j.ID)
	v, last := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v)
	require.False(e, last)
	require.Equal(e, pipeline.VerdictStale, e.fail(w, l.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt))
	require.Equal(e, pipeline.VerdictStale, e.release(w, l.Ref))
	require.False(e, e.complete(j.ID, 1))
	require.Equal(e, canceled, e.get(j.ID))
}

// The last result first: cancel still wins over the publishing.
func raceFinishThenCancel(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	_, last := e.finish(w, e.claimOne(w).Ref)
	require.True(e, last)

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.False(e, e.complete(j.ID, 1))
	require.Equal(e, pipeline.JobCanceled, e.get(j.ID).State)

	for _, d := range e.pass(time.Minute).Duties {
		require.NotEqual(e, pipeline.DutyPublish, d.Kind)
	}
}

func raceCompleteThenCancel(e *env) {
	j := e.completed(e.attach("w1"))
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	e.refused(pipeline.ReasonJobTerminal, err)
	require.Equal(e, j, e.get(j.ID))
}

// A result of the run that was canceled doesn't count for the next.
func raceRetryThenLateResult(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	_, err = e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)

	again := e.get(j.ID)
	v, _ := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v)
	require.Equal(e, again, e.get(j.ID))
	require.False(e, e.complete(j.ID, 1))
}

// What a worker says of a deleted job is stale, and brings nothing of it back.
func raceDeleteThenLateWrites(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))

	v, _ := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v)
	require.Equal(e, pipeline.VerdictStale, e.fail(w, l.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt))
	require.Equal(e, pipeline.VerdictStale, e.release(w, l.Ref))
	require.Equal(e, []pipeline.LeaseRef{l.Ref}, e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: 0.5}))
	require.False(e, e.complete(j.ID, 1))
	_, err = e.store.GetJob(e.ctx(), j.ID)
	e.refused(pipeline.ReasonJobNotFound, err)
}

// A task that was given to another worker is the other's.
func raceLostThenLateResult(e *env) {
	w, other := e.attach("w1"), e.attach("w2")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	require.Equal(e, 1, e.pass(leaseFor+time.Second).Requeued)

	v, _ := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v, "before it is given on")

	next := e.claimOne(other)
	v, _ = e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v)

	v, last := e.finish(other, next.Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.True(e, last)

	v, _ = e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v, "after it is done")
	require.Len(e, e.task(j.ID, 1).Attempts, 2)
}

// A lease that ran out is good until it is taken back: nobody else has it.
func raceRanOutButNotTakenBack(e *env) {
	w := e.attach("w1")
	e.planned(w, encode(1), encode(1))
	leases := e.claim(w, 2)
	e.advance(e.T, 2*leaseFor)

	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: leases[0].Ref}))
	v, _ := e.finish(w, leases[1].Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
}

// An attempt that was ended for its time is over, whatever its worker says of it.
func raceOvertimeThenLateResult(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	require.Equal(e, pipeline.VerdictAccepted, e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonTaskTimeout))

	ended := e.get(j.ID)
	require.Equal(e, pipeline.TaskDelayed, ended.Tasks[1].State)

	v, last := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictStale, v)
	require.False(e, last)
	require.Equal(e, pipeline.VerdictStale, e.release(w, l.Ref))
	require.Equal(e, []pipeline.LeaseRef{l.Ref}, e.renew(w, pipeline.Renewal{Ref: l.Ref}))
	// The worker ended it for its time, too.
	require.Equal(e, pipeline.VerdictAccepted, e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonTaskTimeout))
	require.Equal(e, ended, e.get(j.ID))
}

// A result that came in time counts.
func raceResultThenOvertime(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	_, last := e.finish(w, l.Ref)
	require.True(e, last)

	done := e.get(j.ID)
	require.Equal(e, pipeline.VerdictStale, e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonTaskTimeout))
	require.Equal(e, done, e.get(j.ID))
	require.True(e, e.complete(j.ID, 1))
}

// A dead task fails its job; the leases of its other tasks are taken back.
func raceDeadTaskEndsTheOthers(e *env) {
	w, other := e.attach("w1"), e.attach("w2")
	j := e.planned(w, encode(1), encode(1), encode(1))
	mine, theirs := e.claimOne(w), e.claimOne(other)
	e.fail(w, mine.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt)

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobFailed, got.State)
	require.Equal(e, pipeline.ReasonInputCorrupt, got.Failure.Reason)
	require.Equal(e, pipeline.TaskDead, got.Tasks[1].State)
	require.Equal(e, pipeline.TaskCanceled, got.Tasks[2].State)
	require.Equal(e, pipeline.TaskCanceled, got.Tasks[3].State)

	v, _ := e.finish(other, theirs.Ref)
	require.Equal(e, pipeline.VerdictStale, v)
	require.Empty(e, e.claim(other, 5))
}

func raceCancelThenCompleteUpload(e *env) {
	u := e.upload(time.Hour)
	_, err := e.store.CancelJob(e.ctx(), u.JobID)
	require.NoError(e, err)
	_, err = e.store.CompleteUpload(e.ctx(), u.ID, 1, "etag", probe())
	e.refused(pipeline.ReasonUploadAborted, err)
	require.Equal(e, pipeline.JobCanceled, e.get(u.JobID).State)
}

// The bytes were there before the deadline was looked at: they count.
func raceCompleteUploadThenExpire(e *env) {
	u := e.upload(time.Minute)
	e.advance(e.T, time.Hour)

	_, err := e.store.CompleteUpload(e.ctx(), u.ID, 1, "etag", probe())
	require.NoError(e, err)
	_, err = e.store.EndUpload(e.ctx(), u.ID, pipeline.UploadExpire, pipeline.Failure{Reason: pipeline.ReasonUploadExpired})
	e.refused(pipeline.ReasonUploadCompleted, err)
	require.Equal(e, pipeline.JobPending, e.get(u.JobID).State)
}

// Nobody is given a task of a canceled job; what was claimed before is taken back.
func raceCancelThenClaim(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	l := e.claimOne(w)
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.Empty(e, e.claim(w, 5))
	require.Equal(e, []pipeline.LeaseRef{l.Ref}, e.renew(w, pipeline.Renewal{Ref: l.Ref}))
}

// A publisher that comes late has the outputs of a run that is over.
func raceRetryThenLatePublish(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	_, last := e.finish(w, e.claimOne(w).Ref)
	require.True(e, last)

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	_, err = e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	require.False(e, e.complete(j.ID, 1))
	require.Equal(e, pipeline.JobPending, e.get(j.ID).State)
	require.Empty(e, e.get(j.ID).Outputs)
}

// A job that runs isn't deleted from below its worker.
func raceDeleteOfARunningJob(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	e.refused(pipeline.ReasonJobNotTerminal, e.store.DeleteJob(e.ctx(), j.ID))

	v, last := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.True(e, last)
}
