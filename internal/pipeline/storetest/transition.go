package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func transitionTests() map[string]func(*env) {
	return map[string]func(*env){
		"EveryJobStateByEveryVerb":         transitionJobs,
		"EveryTaskStateByEveryVerb":        transitionTasks,
		"EveryMachineStateByEveryMovement": transitionMachines,
		"EveryUploadStateByEveryVerb":      transitionUploads,
	}
}

// jobIn is a job in a state, with what a verb needs to work on it.
type jobIn struct {
	id     string
	upload string
	lease  pipeline.LeaseRef
}

// Whatever verb meets a job in whatever state: it moves as the table says, or not at all.
func transitionJobs(e *env) {
	w := e.attach("w1")

	states := map[pipeline.JobState]func() jobIn{
		pipeline.JobUploading: func() jobIn { u := e.upload(time.Hour); return jobIn{id: u.JobID, upload: u.ID} },
		pipeline.JobPending:   func() jobIn { return jobIn{id: e.job().ID} },
		pipeline.JobRunning: func() jobIn {
			j := e.planned(w, encode(1))

			return jobIn{id: j.ID, lease: e.claimOne(w).Ref}
		},
		pipeline.JobCompleted: func() jobIn { return jobIn{id: e.completed(w).ID} },
		pipeline.JobFailed:    func() jobIn { return jobIn{id: e.failed(w).ID} },
		pipeline.JobCanceled: func() jobIn {
			j := e.job()
			_, err := e.store.CancelJob(e.ctx(), j.ID)
			require.NoError(e, err)

			return jobIn{id: j.ID}
		},
	}
	// The verbs; whether they refuse or ignore is for other tests to say.
	verbs := map[pipeline.JobTransition]func(jobIn){
		pipeline.JobUploaded: func(j jobIn) { _, _ = e.store.CompleteUpload(e.ctx(), j.upload, 1, "etag", probe()) },
		pipeline.JobUploadFailed: func(j jobIn) {
			_, _ = e.store.EndUpload(e.ctx(), j.upload, pipeline.UploadExpire, pipeline.Failure{Reason: pipeline.ReasonUploadExpired})
		},
		pipeline.JobStart: func(jobIn) { e.claim(w, 1) },
		pipeline.JobComplete: func(j jobIn) {
			_, _, _ = e.store.FinishTask(e.ctx(), pipeline.TaskResult{Ref: j.lease, WorkerID: w.id, Result: encoded()})
			e.complete(j.id, 1)
		},
		pipeline.JobFail:   func(j jobIn) { e.fail(w, j.lease, pipeline.FaultInput, pipeline.ReasonInputCorrupt) },
		pipeline.JobCancel: func(j jobIn) { _, _ = e.store.CancelJob(e.ctx(), j.id) },
		pipeline.JobRetry:  func(j jobIn) { _, _ = e.store.RetryJob(e.ctx(), j.id, 1, probe(), 0) },
	}

	for from, build := range states {
		for by, verb := range verbs {
			j := build()
			require.Equal(e, from, e.get(j.id).State)
			verb(j)

			want, _ := from.Next(by)
			require.Equal(e, want, e.get(j.id).State, "%s by %s", from, by)
			require.Len(e, e.list(pipeline.JobFilter{States: []pipeline.JobState{want}, Limit: 1}), 1, "the index moved along")
			e.clear(w, j.id)
		}
	}
}

// clear ends a job so that the next claim doesn't meet its tasks.
func (e *env) clear(w worker, id string) {
	e.Helper()

	if !e.get(id).State.Terminal() {
		_, err := e.store.CancelJob(e.ctx(), id)
		require.NoError(e, err)
	}

	require.Empty(e, e.claim(w, 1))
	require.NoError(e, e.store.DeleteJob(e.ctx(), id))
}

// taskIn is a task in a state: of the job, at the index, with its newest lease
// and that of the task it waits for.
type taskIn struct {
	job           string
	index         int
	lease, before pipeline.LeaseRef
}

func transitionTasks(e *env) {
	w := e.attach("w1")

	leased := func() taskIn {
		j := e.planned(w, encode(1), encode(1, 0))

		return taskIn{job: j.ID, index: 1, lease: e.claimOne(w).Ref}
	}
	after := func(end func(taskIn)) func() taskIn {
		return func() taskIn {
			task := leased()
			end(task)

			return task
		}
	}
	states := map[pipeline.TaskState]func() taskIn{
		pipeline.TaskBlocked: func() taskIn {
			task := leased()
			task.index, task.before, task.lease = 2, task.lease, pipeline.LeaseRef{TaskID: task.job + "-2", Attempt: 1}

			return task
		},
		pipeline.TaskReady:   after(func(t taskIn) { e.release(w, t.lease) }),
		pipeline.TaskLeased:  leased,
		pipeline.TaskDelayed: after(func(t taskIn) { e.fail(w, t.lease, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed) }),
		pipeline.TaskDone: after(func(t taskIn) {
			e.finish(w, t.lease)
			e.claimOne(w) // what it unblocked, so that no claim finds it
		}),
		pipeline.TaskDead:     after(func(t taskIn) { e.fail(w, t.lease, pipeline.FaultInput, pipeline.ReasonInputCorrupt) }),
		pipeline.TaskCanceled: after(func(t taskIn) { _, _ = e.store.CancelJob(e.ctx(), t.job) }),
	}
	verbs := map[pipeline.TaskTransition]func(taskIn){
		pipeline.TaskUnblock: func(t taskIn) {
			if t.before.TaskID != "" {
				e.finish(w, t.before)
			}
		},
		pipeline.TaskLease:   func(taskIn) { e.claim(w, 1) },
		pipeline.TaskFinish:  func(t taskIn) { e.finish(w, t.lease) },
		pipeline.TaskRelease: func(t taskIn) { e.release(w, t.lease) },
		pipeline.TaskLose: func(t taskIn) {
			// All leases run out, but a task that is delayed doesn't wake: that is another row.
			if e.task(t.job, t.index).State != pipeline.TaskDelayed {
				e.pass(leaseFor)
			}
		},
		pipeline.TaskRetry: func(t taskIn) { e.fail(w, t.lease, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed) },
		pipeline.TaskWake: func(t taskIn) {
			e.sweep()
			e.advance(e.T, time.Second)
			e.sweep()
		},
		pipeline.TaskKill:   func(t taskIn) { e.fail(w, t.lease, pipeline.FaultInput, pipeline.ReasonInputCorrupt) },
		pipeline.TaskCancel: func(t taskIn) { _, _ = e.store.CancelJob(e.ctx(), t.job) },
	}

	for from, build := range states {
		for by, verb := range verbs {
			task := build()
			require.Equal(e, from, e.task(task.job, task.index).State)
			verb(task)

			want, _ := from.Next(by)
			require.Equal(e, want, e.task(task.job, task.index).State, "%s by %s", from, by)
			e.clear(w, task.job)
		}
	}
}

func transitionMachines(e *env) {
	states, movements := machineTable()

	for _, from := range states {
		if from == pipeline.MachineDestroyed {
			continue // it is forgotten
		}

		for _, by := range movements {
			m := e.machineIn(from)
			got, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: m, By: by})
			require.NoError(e, err)

			want, _ := from.Next(by)
			require.Equal(e, want, got.State, "%s by %s", from, by)

			again, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: m, By: by})
			require.NoError(e, err)
			require.Equal(e, want, again.State, "a replay of %s by %s", from, by)
		}
	}
}

// machineTable returns the states and movements of the table.
func machineTable() ([]pipeline.MachineState, []pipeline.MachineTransition) {
	var (
		states    []pipeline.MachineState
		movements []pipeline.MachineTransition
	)

	seen := map[string]bool{}
	for _, row := range pipeline.MachineTransitions() {
		for _, s := range []pipeline.MachineState{row.From, row.To} {
			if !seen[string(s)] {
				seen[string(s)] = true

				states = append(states, s)
			}
		}

		if !seen["by "+string(row.By)] {
			seen["by "+string(row.By)] = true

			movements = append(movements, row.By)
		}
	}

	return states, movements
}

// machineIn reserves a machine and moves it to a state by the shortest way.
func (e *env) machineIn(to pipeline.MachineState) string {
	e.Helper()

	id := newID()
	ok, err := e.store.ReserveMachine(e.ctx(), pipeline.Machine{ID: id, Provider: "process"}, 1000, 0)
	require.NoError(e, err)
	require.True(e, ok)

	type path struct {
		at  pipeline.MachineState
		way []pipeline.MachineTransition
	}

	queue := []path{{at: pipeline.MachineCreating}}
	for len(queue) > 0 && queue[0].at != to {
		p := queue[0]
		queue = queue[1:]

		for _, row := range pipeline.MachineTransitions() {
			if row.From == p.at {
				queue = append(queue, path{row.To, append(append([]pipeline.MachineTransition{}, p.way...), row.By)})
			}

			require.Less(e, len(queue), 10_000, "no way to %s", to)
		}
	}

	for _, by := range queue[0].way {
		_, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: id, By: by})
		require.NoError(e, err)
	}

	return id
}

func transitionUploads(e *env) {
	move := func(id string, by pipeline.UploadTransition) {
		if by == pipeline.UploadComplete {
			_, _ = e.store.CompleteUpload(e.ctx(), id, 1, "etag", probe())
		} else {
			_, _ = e.store.EndUpload(e.ctx(), id, by, pipeline.Failure{Reason: pipeline.ReasonUploadExpired})
		}
	}

	ways := []pipeline.UploadTransition{""} // "" stays open
	for _, row := range pipeline.UploadTransitions() {
		ways = append(ways, row.By)
	}

	for _, way := range ways {
		for _, by := range ways[1:] {
			id := e.upload(time.Hour).ID
			from := pipeline.UploadOpen

			if way != "" {
				move(id, way)

				from, _ = from.Next(way)
			}

			move(id, by)

			want, _ := from.Next(by)
			got, err := e.store.GetUpload(e.ctx(), id)
			require.NoError(e, err)
			require.Equal(e, want, got.State, "%s by %s", from, by)
		}
	}
}
