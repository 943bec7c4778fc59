package modeltest

import (
	"cmp"
	"maps"
	"slices"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// audit holds the invariants of the design against what can be read of a
// store, whatever the model says; s is after the step, w.last before it.
func (w *world) audit(s *snapshot) {
	w.Helper()

	for id := range w.last.Jobs {
		if _, there := s.Jobs[id]; !there {
			w.auditGone(id)
		}
	}

	for _, id := range slices.Sorted(maps.Keys(s.Jobs)) {
		j := s.Jobs[id]
		w.auditJob(s, j)
		w.auditEvents(s, j)

		for _, t := range j.Tasks {
			w.auditTask(j, t)
		}
	}

	w.auditUploads(s)
	w.auditLeases(s)
	w.auditCounters(s)
}

// No accepted job is lost: one that is gone had ended, and was deleted.
func (w *world) auditGone(id string) {
	before := w.last.Jobs[id]
	require.True(w, before.State.Terminal(), "job %s is gone", id)
	require.Contains(w, []string{"DeleteJob", "Sweep"}, w.verb, "job %s is gone", id)

	if w.verb == "Sweep" {
		require.False(w, before.Times.Finished.Add(retention).After(w.now), "job %s went before its time", id)
	}

	w.gone[id] = true
}

// auditJob holds that a job moves by the table, that one that ended doesn't
// change, and that one that lives can go on.
func (w *world) auditJob(s *snapshot, j pipeline.Job) {
	before, known := w.last.Jobs[j.ID]

	if known && before.Run == j.Run {
		if before.State.Terminal() {
			require.Empty(w, gocmp.Diff(before, j, equal()), "job %s changed after its end", j.ID)
		}

		require.True(w, reaches(pipeline.JobTransitions(), before.State, j.State, 1), "job %s: %s to %s", j.ID, before.State, j.State)
		require.GreaterOrEqual(w, j.Progress.Percent, before.Progress.Percent, "job %s went back", j.ID)
	}

	if known && before.Run != j.Run {
		require.Equal(w, before.Run+1, j.Run)
		require.Equal(w, pipeline.JobPending, j.State)

		_, may := before.State.Next(pipeline.JobRetry)
		require.True(w, may, "a retry of a job in %s", before.State)
	}

	require.Equal(w, j.State == pipeline.JobCompleted, len(j.Outputs) > 0)
	require.Equal(w, j.State == pipeline.JobFailed || j.State == pipeline.JobCanceled, j.Failure != nil)
	require.Equal(w, j.State == pipeline.JobCompleted, j.Progress.Percent == 100)

	count := map[pipeline.TaskState]int{}

	for _, t := range j.Tasks {
		if t.Run == j.Run {
			count[t.State]++
		} else {
			require.Contains(w, []pipeline.TaskState{pipeline.TaskDone, pipeline.TaskDead, pipeline.TaskCanceled}, t.State)
		}
	}

	alive := count[pipeline.TaskReady] + count[pipeline.TaskLeased] + count[pipeline.TaskDelayed]
	blocked := count[pipeline.TaskBlocked]

	switch j.State {
	case pipeline.JobUploading:
		require.Equal(w, pipeline.UploadOpen, s.Uploads[j.Source.UploadID].State, "job %s waits for nothing", j.ID)
	case pipeline.JobPending, pipeline.JobRunning:
		// It waits for a task that will run, or all are done and it is to be published.
		require.True(w, alive > 0 || blocked+count[pipeline.TaskDead]+count[pipeline.TaskCanceled] == 0, "job %s is stuck: %v", j.ID, count)
	default:
		require.Zero(w, alive+blocked, "job %s has ended and its tasks haven't: %v", j.ID, count)
	}
}

// reaches reports whether a table leads from one state to another in so many steps at most.
func reaches[S, T ~string](table []pipeline.Transition[S, T], from, to S, steps int) bool {
	if from == to {
		return true
	}

	return steps > 0 && slices.ContainsFunc(table, func(row pipeline.Transition[S, T]) bool {
		return row.From == from && reaches(table, row.To, to, steps-1)
	})
}

// auditEvents holds that a job's events are told once, in order, and say what became of it: each run ends once, and
// each task is done once.
func (w *world) auditEvents(s *snapshot, j pipeline.Job) {
	events := s.Events[j.ID]
	require.Len(w, events, int(j.Sequence))

	if before := w.last.Events[j.ID]; len(before) > 0 {
		require.Empty(w, gocmp.Diff(before, events[:len(before)], equal()), "events of job %s changed", j.ID)
	}

	count, done, leased := map[pipeline.EventType]int{}, map[string]int{}, map[string]int{}

	for i, e := range events {
		require.Equal(w, int64(i+1), e.Sequence)

		count[e.Type]++

		switch e.Type {
		case pipeline.EventTaskDone:
			done[e.TaskID]++
		case pipeline.EventTaskLeased:
			leased[e.TaskID]++
			require.Equal(w, leased[e.TaskID], e.Attempt, "a token of task %s", e.TaskID)
		default:
		}
	}

	ended := j.Run - 1
	if j.State.Terminal() {
		ended++
	}

	ends := count[pipeline.EventCompleted] + count[pipeline.EventFailed] + count[pipeline.EventCanceled]
	require.Equal(w, ended, ends, "ends of job %s", j.ID)
	require.Equal(w, j.State == pipeline.JobCompleted, count[pipeline.EventCompleted] == 1)
	require.Equal(w, j.Run-1, count[pipeline.EventRetried])

	for _, t := range j.Tasks {
		require.Equal(w, t.State == pipeline.TaskDone, done[t.ID] == 1, "task %s was done %d times", t.ID, done[t.ID])
	}
}

// auditTask holds that a task moves by the table, and that its newest attempt alone may run.
func (w *world) auditTask(j pipeline.Job, t pipeline.Task) {
	for _, before := range w.last.Jobs[j.ID].Tasks {
		if before.ID == t.ID {
			// A sweep may take a lease back and end the job by another task.
			require.True(w, reaches(pipeline.TaskTransitions(), before.State, t.State, 2), "task %s: %s to %s", t.ID, before.State, t.State)
		}
	}

	number := 0

	for i, a := range t.Attempts {
		require.Greater(w, a.Number, number)
		number = a.Number
		newest := i == len(t.Attempts)-1
		require.Equal(w, newest && t.State == pipeline.TaskLeased, a.Ended.IsZero(), "attempt %d of task %s in %s", number, t.ID, t.State)
		require.Equal(w, newest && t.State == pipeline.TaskDone, a.Outcome == pipeline.OutcomeDone)
	}

	require.Equal(w, t.State == pipeline.TaskDelayed, !t.NotBefore.IsZero())
}

// auditUploads holds that an open upload has a job that waits for it, and that a source is there for as long as a job
// may use it.
func (w *world) auditUploads(s *snapshot) {
	for id, u := range s.Uploads {
		require.Equal(w, u.State == pipeline.UploadOpen, s.Jobs[u.JobID].State == pipeline.JobUploading, "upload %s", id)
	}

	for id, j := range s.Jobs {
		if j.Source.UploadID != "" {
			require.Contains(w, s.Uploads, j.Source.UploadID, "the source of job %s", id)
		}
	}
}

// auditLeases holds that a lease has a task and a worker, and both agree.
func (w *world) auditLeases(s *snapshot) {
	held := map[string][]pipeline.LeaseRef{}

	for _, j := range s.Jobs {
		for _, t := range j.Tasks {
			if t.State == pipeline.TaskLeased {
				a := t.Attempts[len(t.Attempts)-1]
				held[a.WorkerID] = append(held[a.WorkerID], pipeline.LeaseRef{TaskID: t.ID, Attempt: a.Number})
			}
		}
	}

	for _, worker := range s.Workers {
		require.ElementsMatch(w, held[worker.ID], worker.Held, "leases of worker %s", worker.ID)
	}
}

// auditCounters holds that counters and lists say what the jobs do.
func (w *world) auditCounters(s *snapshot) {
	var leased, delayed, ready, parked int64

	for _, project := range projects() {
		var (
			waiting int64
			limited bool
			ids     []string
		)

		for id, j := range s.Jobs {
			if j.Project != project {
				continue
			}

			ids = append(ids, id)
			limited = limited || j.Wait == pipeline.WaitProject

			for _, t := range j.Tasks {
				switch t.State {
				case pipeline.TaskLeased:
					leased++
				case pipeline.TaskDelayed:
					delayed++
				case pipeline.TaskReady:
					waiting++
				default:
				}
			}
		}

		ready += waiting
		if limited {
			parked += waiting
		}

		w.auditList(s, project, ids)
	}

	require.Equal(w, leased, s.Stats.LeasedTasks)
	require.Equal(w, delayed, s.Stats.DelayedTasks)
	require.LessOrEqual(w, s.Stats.ReadyTasks, ready-parked, "those that are told that they wait for the limit don't count")
	require.Equal(w, ready, s.Stats.ReadyTasks+s.Stats.LimitedTasks, "each that is ready is counted once")
}

func (w *world) auditList(s *snapshot, project string, ids []string) {
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })

	listed := make([]string, 0, len(ids))
	for _, j := range s.Lists[project] {
		listed = append(listed, j.ID)
		require.Equal(w, s.Jobs[j.ID].State, j.State)
	}

	require.Empty(w, gocmp.Diff(ids, listed, equal()), "the list of project %s", project)
}
