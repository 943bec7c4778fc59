package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func sweepTests() map[string]func(*env) {
	return map[string]func(*env){
		"OneLeads":                  sweepOneLeads,
		"LeadershipLapses":          sweepLeadershipLapses,
		"ResignIsImmediate":         sweepResign,
		"ResignWakesForTheOverdue":  sweepResignWakes,
		"PauseRenewsOnce":           sweepPauseRenewsOnce,
		"FirstSweepIsAfterAPause":   sweepFirst,
		"NextDueIsTheNext":          sweepNextDue,
		"ManyAtOnce":                sweepManyAtOnce,
		"ForgetsWorkersInTheEnd":    sweepForgetsWorkers,
		"NothingIsDueWithoutReason": sweepNothing,
	}
}

func dutyTests() map[string]func(*env) {
	return map[string]func(*env){
		"PublishAfterTheLastTask":  dutyPublish,
		"CleanAfterAFailure":       dutyCleanAfterFailure,
		"CleanAfterARelease":       dutyCleanAfterRelease,
		"CleanMaterial":            dutyCleanMaterial,
		"RetryWithdrawsTheClean":   dutyRetryWithdraws,
		"ComesAgainUntilItIsEnded": dutyComesAgain,
		"PublishNeedsItsJob":       dutyPublishStays,
		"RemovalsPutOff":           dutyPutOff,
		"NewerCleanStays":          dutyNewerCleanStays,
		"LateWritesArePurged":      dutyPurgesLateWrites,
		"LateUploadsArePurged":     dutyPurgesLateUploads,
		"EndedUploadsAreSettled":   dutySettlesEndedUploads,
	}
}

func (e *env) sweepAs(name string) pipeline.Swept {
	e.Helper()

	s, err := e.store.Sweep(e.ctx(), sweepBy(name))
	require.NoError(e, err)

	return s
}

func sweepOneLeads(e *env) {
	require.True(e, e.sweepAs("a").Leader)
	e.advance(e.T, leadFor/3)

	b := e.sweepAs("b")
	require.False(e, b.Leader)
	require.InDelta(e, (leadFor - leadFor/3).Seconds(), b.NextDue.Seconds(), 1)
	require.True(e, e.sweepAs("a").Leader)
}

func sweepLeadershipLapses(e *env) {
	w := e.attach("w1")
	e.job()
	e.sweepAs("a")
	e.claimOne(w)
	e.advance(e.T, leadFor+time.Second)
	require.True(e, e.sweepAs("b").Leader)
	require.False(e, e.sweepAs("a").Leader)
}

func sweepResign(e *env) {
	e.sweepAs("a")
	require.NoError(e, e.store.Resign(e.ctx(), "b"), "not its own")
	require.False(e, e.sweepAs("b").Leader)
	require.NoError(e, e.store.Resign(e.ctx(), "a"))
	require.True(e, e.sweepAs("b").Leader)
}

// What a leader left undone when it stopped wakes the others.
func sweepResignWakes(e *env) {
	e.upload(time.Second)
	e.sweepAs("a")
	e.advance(e.T, 2*time.Second)

	wakes, err := e.store.Wakes(e.ctx())
	require.NoError(e, err)
	require.NoError(e, e.store.Resign(e.ctx(), "a"))

	select {
	case wake := <-wakes:
		require.Equal(e, pipeline.WakeDue, wake)
	case <-time.After(patience):
		require.Fail(e, "nobody was woken")
	}
}

// After an outage of the control plane every worker gets one more lease.
func sweepPauseRenewsOnce(e *env) {
	w := e.attach("w1")
	j := e.job()
	e.sweep()
	e.claimOne(w)
	e.advance(e.T, 10*leaseFor)

	require.Zero(e, e.sweep().Requeued)
	require.Equal(e, pipeline.TaskLeased, e.task(j.ID, 0).State)
	require.Zero(e, e.pass(leaseFor-time.Second).Requeued)
	require.Equal(e, 1, e.pass(time.Second).Requeued, "and no more than one")
}

// Of the time before the first sweep nothing is known.
func sweepFirst(e *env) {
	w := e.attach("w1")
	e.job()
	e.claimOne(w)
	e.advance(e.T, 2*leaseFor)
	require.Zero(e, e.sweep().Requeued)
	require.Equal(e, 1, e.pass(leaseFor).Requeued)
}

// The sweeper is told when to come again: at the next deadline, often enough
// to know a pause, and before its leadership lapses.
func sweepNextDue(e *env) {
	require.Equal(e, leadFor, e.sweep().NextDue)

	e.upload(10 * time.Second)
	require.InDelta(e, 10, e.sweep().NextDue.Seconds(), 2)

	w := e.attach("w1")
	e.job()

	l := e.claimOne(w)
	due := e.sweep().NextDue
	require.Positive(e, due)
	require.LessOrEqual(e, due, leaseFor/2)

	e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
	require.LessOrEqual(e, e.sweep().NextDue, time.Second)
}

// However much is due, it is all done; in pieces, each at once after the other.
func sweepManyAtOnce(e *env) {
	w := e.attach("w1")

	const jobs = 150
	for range jobs {
		e.job()
	}

	require.Len(e, e.claim(w, jobs), jobs)
	e.pass(leaseFor - time.Second)
	e.advance(e.T, time.Second)

	requeued := 0

	for range jobs {
		s := e.sweep()
		requeued += s.Requeued

		if s.NextDue > 0 {
			break
		}
	}

	require.Equal(e, jobs, requeued)
	require.Len(e, e.claim(w, jobs), jobs)
}

func sweepForgetsWorkers(e *env) {
	w := e.attach("w1")
	e.advance(e.T, 2*time.Hour)
	e.sweep()
	_, err := e.store.DrainWorker(e.ctx(), w.id)
	e.refused(pipeline.ReasonWorkerNotFound, err)
}

func sweepNothing(e *env) {
	w := e.attach("w1")
	e.completed(w)
	e.job()
	swept := e.pass(2 * time.Hour)
	require.Equal(e, pipeline.Swept{Leader: true, NextDue: leadFor, Term: swept.Term}, swept)
}

// The publishing that the finishing replica didn't do is handed to another.
func dutyPublish(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	e.finish(w, e.claimOne(w).Ref)
	require.Empty(e, e.pass(4*time.Second).Duties, "the finishing replica goes first")

	want := pipeline.Duty{Kind: pipeline.DutyPublish, ID: j.ID, Project: j.Project}
	require.Equal(e, []pipeline.Duty{want}, e.pass(2*time.Second).Duties)
	require.True(e, e.complete(j.ID, 1))
	require.Empty(e, e.pass(10*time.Minute).Duties, "CompleteJob ended it")
}

// A job that ended without success may have left objects, which are cleaned
// when no URL to write them can live.
func dutyCleanAfterFailure(e *env) {
	w := e.attach("w1")
	j := e.failed(w)
	require.Empty(e, e.pass(6*time.Minute).Duties)
	require.Equal(e, []pipeline.Duty{{Kind: pipeline.DutyClean, ID: j.ID, Project: j.Project}},
		e.pass(leaseFor+5*time.Second).Duties)

	canceled := e.job()
	_, err := e.store.CancelJob(e.ctx(), canceled.ID)
	require.NoError(e, err)
	require.NoError(e, e.store.EndDuty(e.ctx(), pipeline.Duty{Kind: pipeline.DutyClean, ID: j.ID}))

	duties := e.pass(7 * time.Minute).Duties
	require.NotEmpty(e, duties)
	require.Equal(e, canceled.ID, duties[0].ID)
}

// A completed job is cleaned only if an attempt was left behind.
func dutyCleanAfterRelease(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	e.release(w, e.claimOne(w).Ref)
	e.finish(w, e.claimOne(w).Ref)
	require.True(e, e.complete(j.ID, 1))

	duties := e.pass(6*time.Minute + leaseFor + 5*time.Second).Duties
	require.Len(e, duties, 1)
	require.Equal(e, pipeline.DutyClean, duties[0].Kind)
}

// Or if it was put together of what nobody asked for.
func dutyCleanMaterial(e *env) {
	w := e.attach("w1")
	e.job()
	l := e.claimOne(w)
	verdict, _, err := e.store.FinishTask(e.ctx(), pipeline.TaskResult{
		Ref: l.Ref, WorkerID: w.id, Probe: &media.Probe{Format: "mov"}, Tasks: []pipeline.NewTask{encode(1)},
		Plan: &media.Plan{Outputs: []media.OutputPlan{{Name: "mp4"}, {Name: "material", Intermediate: true}}},
	})
	require.NoError(e, err)
	require.Equal(e, pipeline.VerdictAccepted, verdict)
	e.finish(w, e.claimOne(w).Ref)
	require.True(e, e.complete(l.Job.ID, 1))

	duties := e.pass(6*time.Minute + leaseFor + 5*time.Second).Duties
	require.Equal(e, []pipeline.Duty{{Kind: pipeline.DutyClean, ID: l.Job.ID, Project: l.Job.Project}}, duties)
}

// A job that runs again isn't cleaned under its feet, but after its new end.
func dutyRetryWithdraws(e *env) {
	w := e.attach("w1")
	j := e.failed(w)
	_, err := e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	require.Empty(e, e.pass(20*time.Minute).Duties)

	e.plan(w, e.claimOne(w), encode(1))
	e.finish(w, e.claimOne(w).Ref)
	require.True(e, e.complete(j.ID, 2))

	duties := e.pass(6*time.Minute + leaseFor + 5*time.Second).Duties
	require.Len(e, duties, 1)
	require.Equal(e, pipeline.DutyClean, duties[0].Kind)
}

func dutyComesAgain(e *env) {
	w := e.attach("w1")
	j := e.completed(w)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))
	require.Len(e, e.sweep().Duties, 1)
	require.Empty(e, e.pass(55*time.Second).Duties)

	duties := e.pass(10 * time.Second).Duties
	require.Len(e, duties, 1)
	require.NoError(e, e.store.EndDuty(e.ctx(), duties[0]))
	require.NoError(e, e.store.EndDuty(e.ctx(), duties[0]))
	require.Empty(e, e.pass(5*time.Minute).Duties)
}

// A busy sweeper gets what jobs wait for, and what is to be removed a minute later.
func dutyPutOff(e *env) {
	w := e.attach("w1")
	j := e.completed(w)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))

	waits := e.planned(w, encode(1))
	e.finish(w, e.claimOne(w).Ref)
	e.advance(e.T, 6*time.Second)

	busy := sweepBy(replica)
	busy.Busy = true
	swept, err := e.store.Sweep(e.ctx(), busy)
	require.NoError(e, err)
	require.Equal(e, []pipeline.Duty{{Kind: pipeline.DutyPublish, ID: waits.ID, Project: waits.Project}}, swept.Duties)
	require.True(e, e.complete(waits.ID, 1))
	require.Empty(e, e.pass(50*time.Second).Duties)

	duties := e.pass(12 * time.Second).Duties
	require.Len(e, duties, 1)
	require.Equal(e, pipeline.DutyPurge, duties[0].Kind)
	require.Equal(e, j.ID, duties[0].ID)
}

// A job that is done and isn't published keeps its duty, whatever whoever did it believes.
func dutyPublishStays(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	e.finish(w, e.claimOne(w).Ref)
	require.Len(e, e.pass(6*time.Second).Duties, 1)

	duty := pipeline.Duty{Kind: pipeline.DutyPublish, ID: j.ID, Project: j.Project}
	require.NoError(e, e.store.EndDuty(e.ctx(), duty))
	require.Equal(e, []pipeline.Duty{duty}, e.pass(time.Minute).Duties)
	require.True(e, e.complete(j.ID, 1))
	require.Empty(e, e.pass(2*time.Minute).Duties)
}

// The end of a run's clean-up doesn't end that of the next run.
func dutyNewerCleanStays(e *env) {
	w := e.attach("w1")
	j := e.failed(w)
	duties := e.pass(6*time.Minute + leaseFor + 5*time.Second).Duties
	require.Len(e, duties, 1)

	_, err := e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	e.fail(w, e.claimOne(w).Ref, pipeline.FaultInput, pipeline.ReasonInputNotMedia)
	require.NoError(e, e.store.EndDuty(e.ctx(), duties[0]))

	again := e.pass(6*time.Minute + leaseFor + 5*time.Second).Duties
	require.Equal(e, duties, again)
	require.NoError(e, e.store.EndDuty(e.ctx(), again[0]))
	require.Empty(e, e.pass(10*time.Minute).Duties)
}

// Who deletes a job that ended a moment ago leaves nothing that a worker still wrote.
func dutyPurgesLateWrites(e *env) {
	w := e.attach("w1")
	j := e.failed(w)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))

	first := e.sweep().Duties
	require.Len(e, first, 1)

	for range 2 {
		require.NoError(e, e.store.EndDuty(e.ctx(), first[0]))
	}

	require.Empty(e, e.pass(6*time.Minute).Duties)

	second := e.pass(leaseFor + 5*time.Second).Duties
	require.Equal(e, first, second)
	require.NoError(e, e.store.EndDuty(e.ctx(), second[0]))
	require.Empty(e, e.pass(10*time.Minute).Duties)
}

// What was stored of an upload that ended without its bytes is removed, though
// who ended it doesn't get to that.
func dutySettlesEndedUploads(e *env) {
	u := e.upload(24 * time.Hour)
	_, err := e.store.CancelJob(e.ctx(), u.JobID)
	require.NoError(e, err)
	require.Empty(e, e.sweep().Duties)

	for range 2 { // until it is done
		duties := e.pass(time.Minute + 5*time.Second).Duties
		require.Len(e, duties, 1)
		require.Equal(e, pipeline.DutyExpireUpload, duties[0].Kind)
		require.Equal(e, u.ID, duties[0].ID)
	}

	require.NoError(e, e.store.EndDuty(e.ctx(), pipeline.Duty{Kind: pipeline.DutyExpireUpload, ID: u.ID}))
	require.Empty(e, e.pass(2*time.Minute).Duties)
}

// Who deletes a job whose upload was given up leaves nothing that a client still sent.
func dutyPurgesLateUploads(e *env) {
	u := e.upload(24 * time.Hour)
	_, err := e.store.CancelJob(e.ctx(), u.JobID)
	require.NoError(e, err)
	require.NoError(e, e.store.DeleteJob(e.ctx(), u.JobID))

	first := e.sweep().Duties
	require.Len(e, first, 1)
	require.NoError(e, e.store.EndDuty(e.ctx(), first[0]))
	require.Empty(e, e.pass(pipeline.UploadURLLife+5*time.Minute).Duties)

	second := e.pass(time.Minute + 5*time.Second).Duties
	require.Equal(e, first, second)
	require.Equal(e, u.ObjectKey, second[0].Source.ObjectKey)
	require.NoError(e, e.store.EndDuty(e.ctx(), second[0]))
	require.Empty(e, e.pass(2*pipeline.UploadURLLife).Duties)
}
