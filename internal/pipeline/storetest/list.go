package storetest

import (
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func listTests() map[string]func(*env) {
	return map[string]func(*env){
		"PagesAreStable":    listPagesAreStable,
		"FiltersByState":    listFiltersByState,
		"FiltersByProject":  listFiltersByProject,
		"LeavesOutTheHeavy": listLeavesOutTheHeavy,
	}
}

func (e *env) list(f pipeline.JobFilter) []string {
	e.Helper()

	if f.Project == "" {
		f.Project = pipeline.DefaultProject
	}

	jobs, err := e.store.ListJobs(e.ctx(), f)
	require.NoError(e, err)

	ids := make([]string, 0, len(jobs))
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}

	return ids
}

// Every job is on exactly one page, whatever arrives or moves meanwhile.
func listPagesAreStable(e *env) {
	w := e.attach("w1")

	var want []string
	for range 25 {
		want = append(want, e.job().ID)
	}

	slices.Reverse(want)

	var got []string

	before := ""
	for {
		page := e.list(pipeline.JobFilter{Before: before, Limit: 10})
		got = append(got, page...)

		if len(page) < 10 {
			break
		}

		before = page[9]

		e.job()           // arrives
		e.claim(w, 2)     // move to RUNNING
		e.failNext(w)     // arrives and ends
		e.upload(leadFor) // arrives
	}

	require.Equal(e, want, got)
}

// failNext ends whatever job is next.
func (e *env) failNext(w worker) {
	e.Helper()

	l := e.claimOne(w)
	e.fail(w, l.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt)
}

func listFiltersByState(e *env) {
	w := e.attach("w1")
	u := e.upload(leadFor)
	done, failed := e.completed(w), e.failed(w)
	running := e.job()
	e.claimOne(w)

	canceled := e.job()
	_, err := e.store.CancelJob(e.ctx(), canceled.ID)
	require.NoError(e, err)

	pending := e.job()

	for state, id := range map[pipeline.JobState]string{
		pipeline.JobUploading: u.JobID, pipeline.JobPending: pending.ID, pipeline.JobRunning: running.ID,
		pipeline.JobCompleted: done.ID, pipeline.JobFailed: failed.ID, pipeline.JobCanceled: canceled.ID,
	} {
		require.Equal(e, []string{id}, e.list(pipeline.JobFilter{States: []pipeline.JobState{state}, Limit: 10}), state)
	}

	require.Equal(e, []string{pending.ID, running.ID},
		e.list(pipeline.JobFilter{States: []pipeline.JobState{pipeline.JobRunning, pipeline.JobPending}, Limit: 10}))
	require.Len(e, e.list(pipeline.JobFilter{Limit: 10}), 6)
	require.Empty(e, e.list(pipeline.JobFilter{Before: u.JobID, Limit: 10}))
}

func listFiltersByProject(e *env) {
	other := newJob()
	other.Project = "other"
	e.jobOf(other)

	mine := e.job()
	require.Equal(e, []string{mine.ID}, e.list(pipeline.JobFilter{Limit: 10}))
	require.Equal(e, []string{other.ID}, e.list(pipeline.JobFilter{Project: "other", Limit: 10}))
	require.Empty(e, e.list(pipeline.JobFilter{Project: "none", Limit: 10}))
}

// A list has everything of a job but its tasks and the objects of its
// outputs, few or many, however it was completed.
func listLeavesOutTheHeavy(e *env) {
	w := e.attach("w1")

	for _, objects := range []int{0, 1, 8, 9} {
		for _, atOnce := range []bool{false, true} {
			outputs := published()
			outputs[0].Objects = make([]media.OutputObject, objects)

			j := e.planned(w, encode(1))
			r := pipeline.TaskResult{Ref: e.claimOne(w).Ref, WorkerID: w.id, Result: encoded()}

			if atOnce {
				r.Outputs = outputs
			}

			_, last, err := e.store.FinishTask(e.ctx(), r)
			require.NoError(e, err)
			require.True(e, last)

			done, err := e.store.CompleteJob(e.ctx(), j.ID, 1, outputs)
			require.NoError(e, err)
			require.True(e, done)

			full := e.get(j.ID)
			require.Equal(e, outputs, full.Outputs)

			jobs, err := e.store.ListJobs(e.ctx(), pipeline.JobFilter{Project: pipeline.DefaultProject, Limit: 10})
			require.NoError(e, err)

			want := full
			want.Tasks = nil
			want.Outputs = published()
			want.Outputs[0].Objects = nil
			require.Equal(e, want, jobs[0])
		}
	}
}
