package storetest

import (
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Nothing of a deleted job can be read, and its objects are to be purged.
func jobDeleteForgets(e *env) {
	w := e.attach("w1")
	u := e.upload(time.Hour)
	_, err := e.store.CompleteUpload(e.ctx(), u.ID, 5, "etag", probe())
	require.NoError(e, err)
	e.plan(w, e.claimOne(w), encode(1))
	e.finish(w, e.claimOne(w).Ref)
	require.True(e, e.complete(u.JobID, 1))

	require.NoError(e, e.store.DeleteJob(e.ctx(), u.JobID))
	require.NoError(e, e.store.DeleteJob(e.ctx(), u.JobID), "a replay")

	_, err = e.store.GetJob(e.ctx(), u.JobID)
	e.refused(pipeline.ReasonJobNotFound, err)
	_, err = e.store.GetUpload(e.ctx(), u.ID)
	e.refused(pipeline.ReasonUploadNotFound, err)

	jobs, err := e.store.ListJobs(e.ctx(), pipeline.JobFilter{Project: pipeline.DefaultProject, Limit: 10})
	require.NoError(e, err)
	require.Empty(e, jobs)

	duties := e.sweep().Duties
	require.Len(e, duties, 1)
	require.Equal(e, pipeline.DutyPurge, duties[0].Kind)
	require.Equal(e, u.JobID, duties[0].ID)
	require.Equal(e, u.Project, duties[0].Project)
	require.Equal(e, u.ID, duties[0].Source.UploadID)
	require.Equal(e, u.ObjectKey, duties[0].Source.ObjectKey)

	require.NoError(e, e.store.EndDuty(e.ctx(), duties[0]))
	require.Equal(e, duties, e.pass(pipeline.UploadURLLife+6*time.Minute).Duties, "once more")
	require.NoError(e, e.store.EndDuty(e.ctx(), duties[0]))
	require.Empty(e, e.pass(10*time.Minute).Duties)
	e.refused(pipeline.ReasonJobNotFound, e.store.DeleteJob(e.ctx(), u.JobID))
}

func jobDeleteNeedsTheEnd(e *env) {
	w := e.attach("w1")
	u := e.upload(time.Hour)
	e.refused(pipeline.ReasonJobNotTerminal, e.store.DeleteJob(e.ctx(), u.JobID))

	j := e.job()
	e.refused(pipeline.ReasonJobNotTerminal, e.store.DeleteJob(e.ctx(), j.ID))

	l := e.claimOne(w)
	e.refused(pipeline.ReasonJobNotTerminal, e.store.DeleteJob(e.ctx(), j.ID))
	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: l.Ref}), "the attempt isn't touched")
}

func jobCompleteNeedsAllTasks(e *env) {
	w := e.attach("w1")
	j := e.job()
	require.False(e, e.complete(j.ID, 1), "PENDING")

	l := e.claimOne(w)
	require.False(e, e.complete(j.ID, 1), "the probe runs")
	e.plan(w, l, encode(1))
	require.False(e, e.complete(j.ID, 1), "the encode waits")
	require.Equal(e, pipeline.JobRunning, e.get(j.ID).State)
}

func jobCompleteIsIdempotent(e *env) {
	w := e.attach("w1")
	j := e.completed(w)
	n := len(e.events(j.ID))

	require.True(e, e.complete(j.ID, 1))
	require.Len(e, e.events(j.ID), n)
	require.False(e, e.complete(j.ID, 2))
}

// A job that waits says for what, and how many go first.
func jobWaitsForAReason(e *env) {
	var ids []string
	for range 3 {
		ids = append(ids, e.job().ID)
	}

	last := e.get(ids[2])
	require.Equal(e, pipeline.WaitWorker, last.Wait)
	require.Equal(e, int64(2), last.WaitPosition)

	w := e.attach("w1")
	last = e.get(ids[2])
	require.Equal(e, pipeline.WaitQueue, last.Wait)
	require.Equal(e, int64(2), last.WaitPosition)

	l := e.claimOne(w)
	require.Equal(e, pipeline.WaitNone, e.get(l.Job.ID).Wait)
	require.Equal(e, int64(1), e.get(ids[2]).WaitPosition)

	e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
	require.Equal(e, pipeline.WaitBackoff, e.get(l.Job.ID).Wait)
	require.True(e, slices.Contains(ids, l.Job.ID))

	j := e.completed(e.drainQueue(w))
	require.Equal(e, pipeline.WaitNone, j.Wait)
}

// A result that has the outputs of its job completes it, if nothing else is to
// be done: in the same step, so nobody is to publish it.
func jobCompletesWithItsTask(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	leases := e.claim(w, 2)

	finish := func(l pipeline.Lease) (pipeline.Verdict, bool) {
		v, last, err := e.store.FinishTask(e.ctx(), pipeline.TaskResult{
			Ref: l.Ref, WorkerID: w.id, Result: encoded(), Outputs: published(),
		})
		require.NoError(e, err)

		return v, last
	}

	v, last := finish(leases[0])
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.False(e, last)
	require.Equal(e, pipeline.JobRunning, e.get(j.ID).State, "the other task runs")
	require.Empty(e, e.get(j.ID).Outputs)

	for range 2 { // and a replay
		v, last = finish(leases[1])
		require.Equal(e, pipeline.VerdictAccepted, v)
		require.True(e, last)
	}

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobCompleted, got.State)
	require.Equal(e, published(), got.Outputs)
	require.InDelta(e, 100, got.Progress.Percent, 0)
	require.False(e, got.Times.Playable.IsZero())
	require.True(e, e.complete(j.ID, 1), "it is")

	events := e.events(j.ID)
	require.Equal(e, []pipeline.EventType{pipeline.EventTaskDone, pipeline.EventPlayable, pipeline.EventCompleted}, events[len(events)-3:])
	require.Empty(e, e.pass(10*time.Minute).Duties)

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	e.refused(pipeline.ReasonJobTerminal, err)
}
