package storetest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func jobTests() map[string]func(*env) {
	return map[string]func(*env){
		"KeepsEveryField":       jobKeepsEveryField,
		"IDIsIdempotent":        jobIDIsIdempotent,
		"KeyIsIdempotent":       jobKeyIsIdempotent,
		"HappyPath":             jobHappyPath,
		"UnknownIsNotFound":     jobUnknownIsNotFound,
		"EventsAfterASequence":  jobEventsAfterASequence,
		"EventsAreBounded":      jobEventsAreBounded,
		"CancelCancelsTasks":    jobCancelCancelsTasks,
		"CancelIsIdempotent":    jobCancelIsIdempotent,
		"RetryStartsAfresh":     jobRetryStartsAfresh,
		"RetryIsIdempotent":     jobRetryIsIdempotent,
		"DeleteForgets":         jobDeleteForgets,
		"DeleteNeedsTheEnd":     jobDeleteNeedsTheEnd,
		"CompleteNeedsAllTasks": jobCompleteNeedsAllTasks,
		"CompleteIsIdempotent":  jobCompleteIsIdempotent,
		"CompletesWithItsTask":  jobCompletesWithItsTask,
		"WaitsForAReason":       jobWaitsForAReason,
	}
}

// What is created is what is read.
func jobKeepsEveryField(e *env) {
	j := newJob()
	j.Priority = -7
	created := e.jobOf(j)

	want := j
	want.State, want.Run, want.Sequence = pipeline.JobPending, 1, 2
	want.Times = pipeline.JobTimes{Created: created.Times.Created, Queued: created.Times.Queued}
	require.Equal(e, want, created)
	require.False(e, created.Times.Created.IsZero())
	require.False(e, created.Times.Queued.IsZero())

	got := e.get(j.ID)
	require.Len(e, got.Tasks, 1)
	require.Equal(e, pipeline.Task{
		ID: j.ID + "-0", JobID: j.ID, Run: 1, Kind: pipeline.KindProbe, State: pipeline.TaskReady,
	}, got.Tasks[0])

	got.Tasks, got.Wait = nil, ""
	require.Equal(e, want, got)
}

func jobIDIsIdempotent(e *env) {
	j := newJob()
	e.jobOf(j)
	again := e.jobOf(j)
	require.Equal(e, j.ID, again.ID)
	require.Len(e, e.events(j.ID), 2)

	w := e.attach("w1")
	require.Len(e, e.claim(w, 5), 1)
}

func jobKeyIsIdempotent(e *env) {
	idem := pipeline.Admission{IdempotencyKey: "key", Fingerprint: "a", KeyTTL: keyFor}
	j := newJob()
	_, err := e.store.CreateJob(e.ctx(), j, probe(), idem)
	require.NoError(e, err)

	again, err := e.store.CreateJob(e.ctx(), newJob(), probe(), idem)
	require.NoError(e, err)
	require.Equal(e, j.ID, again.ID)
	require.Equal(e, j.Spec, again.Spec)

	idem.Fingerprint = "b"
	_, err = e.store.CreateJob(e.ctx(), newJob(), probe(), idem)
	e.refused(pipeline.ReasonIdempotencyKeyReused, err)
}

// A job from its creation to its outputs, with the events and times of each step.
func jobHappyPath(e *env) {
	w := e.attach("w1")
	j := e.job()

	l := e.claimOne(w)
	require.Equal(e, j.ID+"-0", l.Ref.TaskID)
	require.Equal(e, 1, l.Ref.Attempt)
	require.Equal(e, pipeline.JobRunning, l.Job.State)
	require.Equal(e, j.Spec, l.Job.Spec)
	require.Equal(e, j.Source, l.Job.Source)
	require.WithinDuration(e, l.Job.Times.Started.Add(leaseFor), l.Expires, 0)

	e.plan(w, l, encode(3), encode(1))

	leases := e.claim(w, 5)
	require.Len(e, leases, 2)
	require.Equal(e, &media.Plan{Duration: time.Minute}, leases[0].Job.Plan)
	require.Equal(e, "mov", leases[0].Job.Probe.Format)
	require.Equal(e, "hls", leases[0].Task.Output)

	v, last := e.finish(w, leases[0].Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.False(e, last)
	require.False(e, e.complete(j.ID, 1), "a task isn't done")

	v, last = e.finish(w, leases[1].Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.True(e, last)
	require.True(e, e.complete(j.ID, 1))

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobCompleted, got.State)
	require.Equal(e, published(), got.Outputs)
	require.InDelta(e, 100, got.Progress.Percent, 0)
	require.Nil(e, got.Failure)

	for _, at := range []time.Time{
		got.Times.Created, got.Times.Queued, got.Times.Started, got.Times.Planned, got.Times.Playable, got.Times.Finished,
	} {
		require.False(e, at.IsZero())
	}

	for _, task := range got.Tasks {
		require.Equal(e, pipeline.TaskDone, task.State)
		require.Len(e, task.Attempts, 1)
		require.Equal(e, pipeline.OutcomeDone, task.Attempts[0].Outcome)
		require.Equal(e, w.id, task.Attempts[0].WorkerID)
		require.False(e, task.Attempts[0].Ended.IsZero())
		require.False(e, task.Attempts[0].Charged)
	}

	require.Equal(e, encoded(), got.Tasks[1].Result)
	require.Equal(e, []pipeline.EventType{
		pipeline.EventCreated, pipeline.EventQueued, pipeline.EventStarted, pipeline.EventTaskLeased,
		pipeline.EventTaskDone, pipeline.EventPlanned, pipeline.EventTaskLeased, pipeline.EventTaskLeased,
		pipeline.EventTaskDone, pipeline.EventTaskDone, pipeline.EventPlayable, pipeline.EventCompleted,
	}, e.events(j.ID))
	require.Empty(e, e.pass(10*time.Minute).Duties, "nothing is left to publish or to clean")
}

func jobUnknownIsNotFound(e *env) {
	id := newID()
	_, err := e.store.GetJob(e.ctx(), id)
	e.refused(pipeline.ReasonJobNotFound, err)
	_, err = e.store.JobEvents(e.ctx(), id, 0)
	e.refused(pipeline.ReasonJobNotFound, err)
	_, err = e.store.CancelJob(e.ctx(), id)
	e.refused(pipeline.ReasonJobNotFound, err)
	_, err = e.store.RetryJob(e.ctx(), id, 1, probe(), 0)
	e.refused(pipeline.ReasonJobNotFound, err)
	e.refused(pipeline.ReasonJobNotFound, e.store.DeleteJob(e.ctx(), id))
	require.False(e, e.complete(id, 1))
}

// Events say what, when, to which attempt, and why.
func jobEventsAfterASequence(e *env) {
	w := e.attach("w1")
	j := e.job()
	l := e.claimOne(w)
	e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)

	events, err := e.store.JobEvents(e.ctx(), j.ID, 3)
	require.NoError(e, err)
	require.Len(e, events, 2)
	require.Equal(e, pipeline.Event{
		Sequence: 4, Type: pipeline.EventTaskLeased, At: events[0].At, JobID: j.ID, TaskID: l.Ref.TaskID, Attempt: 1,
	}, events[0])
	require.Equal(e, pipeline.Event{
		Sequence: 5, Type: pipeline.EventTaskDelayed, At: events[1].At, JobID: j.ID, TaskID: l.Ref.TaskID, Attempt: 1,
		Failure: &pipeline.Failure{Reason: pipeline.ReasonEncodeFailed, Message: "it went wrong: 100 %"},
	}, events[1])

	events, err = e.store.JobEvents(e.ctx(), j.ID, 5)
	require.NoError(e, err)
	require.Empty(e, events)
}

// The newest 1,000 events are kept, and the sequence goes on.
func jobEventsAreBounded(e *env) {
	w := e.attach("w1")

	const tasks = 600

	news := make([]pipeline.NewTask, tasks)
	for i := range news {
		news[i] = encode(1)
	}

	j := e.planned(w, news...)

	for done := 0; done < tasks; {
		for _, l := range e.claim(w, 100) {
			v, _ := e.finish(w, l.Ref)
			require.Equal(e, pipeline.VerdictAccepted, v)

			done++
		}
	}

	const total = 6 + 2*tasks

	require.Equal(e, int64(total), e.get(j.ID).Sequence)
	events, err := e.store.JobEvents(e.ctx(), j.ID, 0)
	require.NoError(e, err)
	require.Len(e, events, 1000)
	require.Equal(e, int64(total-999), events[0].Sequence)
	require.Equal(e, int64(total), events[999].Sequence)
	require.Equal(e, pipeline.EventTaskDone, events[999].Type)
	require.Equal(e, j.ID+fmt.Sprintf("-%d", tasks), e.task(j.ID, tasks).ID)
	require.True(e, e.complete(j.ID, 1))
}

// Canceling takes every task of the run along, whatever its state, and the leases.
func jobCancelCancelsTasks(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1), encode(1), encode(1, 0), encode(1))
	leases := e.claim(w, 3)
	require.Len(e, leases, 3)
	e.finish(w, leases[0].Ref)
	e.fail(w, leases[1].Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
	// Now two are done, one each is delayed and leased, two are ready.

	got, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.Equal(e, pipeline.JobCanceled, got.State)
	require.Equal(e, pipeline.ReasonCanceled, got.Failure.Reason)

	states := make([]pipeline.TaskState, 0, len(got.Tasks))
	for _, task := range got.Tasks {
		states = append(states, task.State)
	}

	require.Equal(e, []pipeline.TaskState{
		pipeline.TaskDone, pipeline.TaskDone, pipeline.TaskCanceled, pipeline.TaskCanceled,
		pipeline.TaskCanceled, pipeline.TaskCanceled,
	}, states)
	require.Equal(e, pipeline.OutcomeCanceled, got.Tasks[3].Attempts[0].Outcome)
	require.Equal(e, []pipeline.LeaseRef{leases[2].Ref}, e.renew(w, pipeline.Renewal{Ref: leases[2].Ref}))
	require.Empty(e, e.claim(w, 9))

	stats, err := e.store.PoolStats(e.ctx())
	require.NoError(e, err)
	require.Equal(e, pipeline.PoolStats{}, stats, "nothing is left in a queue")
	require.Zero(e, e.pass(5*time.Minute).Woken)
}

func jobCancelIsIdempotent(e *env) {
	w := e.attach("w1")
	j := e.job()
	first, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	e.advance(e.T, time.Second)

	again, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.Equal(e, first, again)
	require.Len(e, e.events(j.ID), 3)

	_, err = e.store.CancelJob(e.ctx(), e.failed(w).ID)
	e.refused(pipeline.ReasonJobTerminal, err)
	_, err = e.store.CancelJob(e.ctx(), e.completed(w).ID)
	e.refused(pipeline.ReasonJobTerminal, err)
}

// A retry is a new run with a new task; the old ones stay as history.
func jobRetryStartsAfresh(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: 0.5})
	e.fail(w, l.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt)

	got, err := e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	require.Equal(e, pipeline.JobPending, got.State)
	require.Equal(e, 2, got.Run)
	require.Nil(e, got.Failure)
	require.Nil(e, got.Plan)
	require.Nil(e, got.Probe)
	require.Zero(e, got.Progress)
	require.True(e, got.Times.Started.IsZero())
	require.True(e, got.Times.Finished.IsZero())
	require.Len(e, got.Tasks, 3)
	require.Equal(e, pipeline.TaskDead, got.Tasks[1].State)
	require.Equal(e, j.ID+"-2", got.Tasks[2].ID)
	require.Equal(e, 2, got.Tasks[2].Run)
	require.Equal(e, []pipeline.EventType{pipeline.EventFailed, pipeline.EventRetried, pipeline.EventQueued}, e.events(j.ID)[8:])

	e.plan(w, e.claimOne(w), encode(1))
	v, last := e.finish(w, e.claimOne(w).Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.True(e, last)
	require.False(e, e.complete(j.ID, 1), "that run is over")
	require.True(e, e.complete(j.ID, 2))
}

func jobRetryIsIdempotent(e *env) {
	w := e.attach("w1")
	j := e.failed(w)

	for range 2 {
		got, err := e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
		require.NoError(e, err)
		require.Equal(e, 2, got.Run)
		require.Len(e, got.Tasks, 2)
	}

	_, err := e.store.RetryJob(e.ctx(), j.ID, 2, probe(), 0)
	e.refused(pipeline.ReasonJobNotTerminal, err)
	_, err = e.store.RetryJob(e.ctx(), e.completed(e.drainQueue(w)).ID, 1, probe(), 0)
	e.refused(pipeline.ReasonJobTerminal, err)
}

// drainQueue cancels whatever is ready, so that the next claim gets what the test creates.
func (e *env) drainQueue(w worker) worker {
	e.Helper()

	for _, l := range e.claim(w, 100) {
		_, err := e.store.CancelJob(e.ctx(), l.Job.ID)
		require.NoError(e, err)
	}

	return w
}
