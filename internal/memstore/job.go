package memstore

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// CreateJob implements [pipeline.JobStore].
func (s *Store) CreateJob(
	_ context.Context, j pipeline.Job, first pipeline.NewTask, a pipeline.Admission,
) (pipeline.Job, error) {
	defer s.begin()()

	firstID, err := s.known("job", j.Project, a)
	if err != nil {
		return pipeline.Job{}, err
	}

	for _, id := range []string{firstID, j.ID} {
		if known := s.jobs[id]; known != nil {
			return s.read(known), nil
		}
	}

	source := s.uploads[j.Source.UploadID]
	if j.Source.UploadID != "" && (source == nil || source.rec.State != pipeline.UploadCompleted) {
		return pipeline.Job{}, refuse(pipeline.ReasonObjectNotFound, "The job's source is gone.")
	}

	if err := s.admit(j.Project, a.WaitingLimit); err != nil {
		return pipeline.Job{}, err
	}

	s.remember("job", j.Project, a, j.ID)
	created := s.addJob(j, pipeline.JobPending)

	if source != nil {
		created.upload = source.rec.ID
		source.jobs++
	}

	s.startRun(created, first)

	return created.view(), nil
}

// addJob writes a new job: of the given record what a caller sets.
func (s *Store) addJob(j pipeline.Job, state pipeline.JobState) *job {
	created := &job{rec: pipeline.Job{
		ID: j.ID, Project: j.Project, State: state, Spec: j.Spec, Source: j.Source, Priority: j.Priority,
		Labels: j.Labels, Times: pipeline.JobTimes{Created: s.now}, Run: 1,
	}}
	s.jobs[j.ID] = created
	s.event(created, pipeline.EventCreated, nil, nil)

	return created
}

// startRun queues the first task of a run.
func (s *Store) startRun(j *job, first pipeline.NewTask) {
	j.rec.Times.Queued = s.now
	s.event(j, pipeline.EventQueued, nil, nil)
	first.After = nil // it is the first
	s.addTasks(j, []pipeline.NewTask{first})
}

// CancelJob implements [pipeline.JobStore].
func (s *Store) CancelJob(_ context.Context, id string) (pipeline.Job, error) {
	defer s.begin()()

	j := s.jobs[id]
	if j == nil {
		return pipeline.Job{}, noJob()
	}

	if j.rec.State == pipeline.JobCanceled {
		return s.read(j), nil
	}

	uploading := j.rec.State == pipeline.JobUploading
	if !j.move(pipeline.JobCancel) {
		return pipeline.Job{}, refuse(pipeline.ReasonJobTerminal, "The job has ended.")
	}

	if uploading {
		s.moveUpload(s.uploads[j.upload], pipeline.UploadAbort)
	}

	s.cancelTasks(j)
	s.endJob(j, pipeline.EventCanceled, &pipeline.Failure{
		Reason: pipeline.ReasonCanceled, Message: "The job was canceled.",
	})
	s.cleanLater(j)

	return s.read(j), nil
}

// RetryJob implements [pipeline.JobStore].
func (s *Store) RetryJob(
	_ context.Context, id string, expectRun int, first pipeline.NewTask, waitingLimit int,
) (pipeline.Job, error) {
	defer s.begin()()

	j := s.jobs[id]

	switch {
	case j == nil:
		return pipeline.Job{}, noJob()
	case j.rec.Run == expectRun+1:
		return s.read(j), nil
	case j.rec.Run == expectRun && j.rec.State == pipeline.JobCompleted:
		return pipeline.Job{}, refuse(pipeline.ReasonJobTerminal, "The job has ended.")
	case j.rec.Run != expectRun, !j.rec.State.Terminal():
		return pipeline.Job{}, refuse(pipeline.ReasonJobNotTerminal, "The job has not ended.")
	case j.rec.Times.Queued.IsZero():
		return pipeline.Job{}, refuse(pipeline.ReasonInputMissing, "The job's source was never uploaded.")
	}

	if err := s.admit(j.rec.Project, waitingLimit); err != nil {
		return pipeline.Job{}, err
	}

	j.move(pipeline.JobRetry)
	s.dropDuties(j)

	for _, t := range j.tasks {
		t.rec.Result = nil
	}

	j.rec.Run++
	j.rec.Times = pipeline.JobTimes{Created: j.rec.Times.Created}
	j.rec.Progress, j.rec.Failure, j.rec.Probe, j.rec.Plan = pipeline.Progress{}, nil, nil, nil
	j.first, j.done = len(j.tasks), 0
	j.left = true // what the ended run wrote is cleaned up after this one
	s.event(j, pipeline.EventRetried, nil, nil)
	s.startRun(j, first)
	s.turnsOf(j)

	return s.read(j), nil
}

// DeleteJob implements [pipeline.JobStore].
func (s *Store) DeleteJob(_ context.Context, id string) error {
	defer s.begin()()

	j := s.jobs[id]
	if j == nil {
		if _, deleted := s.purges[id]; deleted {
			return nil
		}

		return noJob()
	}

	if !j.rec.State.Terminal() {
		return refuse(pipeline.ReasonJobNotTerminal, "The job has not ended.")
	}

	s.deleteJob(j)

	return nil
}

// deleteJob removes a job that ended. Its upload goes with the last job that
// has it as its source; until then the source isn't among what is purged.
func (s *Store) deleteJob(j *job) {
	id := j.rec.ID
	left := purge{project: j.rec.Project, source: j.rec.Source}

	if u := s.uploads[j.upload]; u != nil {
		if u.jobs--; u.jobs > 0 {
			left.source = pipeline.Source{}
		} else {
			delete(s.uploads, j.upload)
			delete(s.duties, dutyName{pipeline.DutyExpireUpload, j.upload})
		}
	}

	// A URL to write may outlive the job: what comes late is purged
	// when none works any more, and what began with it is over.
	var last time.Duration
	if j.maxLease > 0 {
		last = j.maxLease + cleanAfter
	}

	if j.upload != "" {
		last = max(last, pipeline.UploadURLLife+cleanAfter)
	}

	if end := j.rec.Times.Finished.Add(last); last > 0 && !s.passed(end) {
		left.again = end
	}

	s.dropDuties(j)
	s.purges[id] = left
	s.duty(pipeline.DutyPurge, id, s.now)
	delete(s.jobs, id)
	s.changed[j] = struct{}{} // whoever watches it reads again, and finds it gone
}

// CompleteJob implements [pipeline.JobStore].
func (s *Store) CompleteJob(_ context.Context, id string, run int, outputs []media.Output) (bool, error) {
	defer s.begin()()

	j := s.jobs[id]
	if j == nil || j.rec.Run != run {
		return false, nil
	}

	if j.rec.State == pipeline.JobCompleted {
		return true, nil
	}

	return j.open() == 0 && s.complete(j, outputs), nil
}

// complete ends a job whose tasks are all done; false if it may not.
func (s *Store) complete(j *job, outputs []media.Output) bool {
	if !j.move(pipeline.JobComplete) {
		return false
	}

	j.rec.Outputs = outputs
	j.rec.Progress.Percent = 100
	s.playable(j)
	s.endJob(j, pipeline.EventCompleted, nil)

	if j.left {
		s.cleanLater(j)
	}

	return true
}

// endJob notes how a job ended, once it has moved there.
func (s *Store) endJob(j *job, typ pipeline.EventType, f *pipeline.Failure) {
	j.rec.Times.Finished, j.rec.Failure = s.now, f
	s.event(j, typ, nil, f)
	s.dropDuties(j)
	s.endStream(j, typ)
}

// event adds an event of a job, or of one of its tasks.
func (s *Store) event(j *job, typ pipeline.EventType, t *task, f *pipeline.Failure) {
	j.rec.Sequence++
	e := pipeline.Event{Sequence: j.rec.Sequence, Type: typ, At: s.now, JobID: j.rec.ID, Failure: f}

	if t != nil {
		e.TaskID, e.Attempt = t.rec.ID, t.attempt
	}

	j.events = append(j.events, e)
	if len(j.events) > maxEvents {
		j.events = j.events[len(j.events)-maxEvents:]
	}

	s.changed[j] = struct{}{}
}
