package memstore

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// seenWithin is how long a worker that is not heard from counts as there.
const seenWithin = time.Minute

// GetJob implements [pipeline.JobStore].
func (s *Store) GetJob(_ context.Context, id string) (pipeline.Job, error) {
	defer s.begin()()

	j := s.jobs[id]
	if j == nil {
		return pipeline.Job{}, noJob()
	}

	return s.read(j), nil
}

// read is a job with its tasks, and what it waits for.
func (s *Store) read(j *job) pipeline.Job {
	v := j.view()
	v.Progress.Renditions, v.Streamed = j.stream.shown, j.stream.published

	for _, t := range j.tasks {
		v.Tasks = append(v.Tasks, t.view())
	}

	v.Wait, v.WaitPosition = s.wait(j)

	return v
}

func (s *Store) wait(j *job) (pipeline.WaitReason, int64) {
	if j.rec.State == pipeline.JobUploading {
		return pipeline.WaitUpload, 0
	}

	in := func(state pipeline.TaskState) int {
		return slices.IndexFunc(j.run(), func(t *task) bool { return t.rec.State == state })
	}
	if j.rec.State.Terminal() || in(pipeline.TaskLeased) >= 0 {
		return pipeline.WaitNone, 0
	}

	if first := in(pipeline.TaskReady); first >= 0 {
		return s.waitReady(j), s.turns.ahead(j.rec.Project, j.run()[first].entry())
	}

	if in(pipeline.TaskDelayed) >= 0 {
		return pipeline.WaitBackoff, 0
	}

	return pipeline.WaitNone, 0
}

// waitReady is why a job with a ready task waits.
func (s *Store) waitReady(j *job) pipeline.WaitReason {
	if s.turns.project(j.rec.Project).atLimit {
		return pipeline.WaitProject
	}

	for _, w := range s.workers {
		if s.seen(w) {
			return pipeline.WaitQueue
		}
	}

	return pipeline.WaitWorker
}

// turnsOf places the project of a job before the end of the step, for who reads its position in it.
func (s *Store) turnsOf(j *job) {
	if s.turns.place(j.rec.Project) {
		s.wake(pipeline.WakeReady)
	}
}

// ListJobs implements [pipeline.JobStore].
func (s *Store) ListJobs(_ context.Context, f pipeline.JobFilter) ([]pipeline.Job, error) {
	defer s.begin()()

	jobs := []pipeline.Job{}

	for _, j := range s.jobs {
		if j.rec.Project == f.Project && (len(f.States) == 0 || slices.Contains(f.States, j.rec.State)) &&
			(f.Before == "" || j.rec.ID < f.Before) {
			jobs = append(jobs, light(j.view()))
		}
	}

	slices.SortFunc(jobs, func(a, b pipeline.Job) int { return strings.Compare(b.ID, a.ID) })

	return jobs[:min(len(jobs), max(0, f.Limit))], nil
}

// light is a job without the objects of its outputs.
func light(j pipeline.Job) pipeline.Job {
	j.Outputs = slices.Clone(j.Outputs)
	for i := range j.Outputs {
		j.Outputs[i].Objects = []media.OutputObject(nil)
	}

	return j
}

// JobEvents implements [pipeline.JobStore].
func (s *Store) JobEvents(_ context.Context, id string, after int64) ([]pipeline.Event, error) {
	defer s.begin()()

	j := s.jobs[id]
	if j == nil {
		return nil, noJob()
	}

	events := []pipeline.Event{}

	for _, e := range j.events {
		if e.Sequence > after {
			events = append(events, e)
		}
	}

	return events, nil
}
