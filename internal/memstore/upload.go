package memstore

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// CreateUpload implements [pipeline.UploadStore].
func (s *Store) CreateUpload(
	_ context.Context, u pipeline.Upload, j pipeline.Job, ttl time.Duration, a pipeline.Admission,
) (pipeline.Upload, error) {
	defer s.begin()()

	first, err := s.known("upload", j.Project, a)
	if err != nil {
		return pipeline.Upload{}, err
	}

	for _, id := range []string{first, u.ID} {
		if known := s.uploads[id]; known != nil {
			return known.rec, nil
		}
	}

	if err := s.admit(j.Project, a.WaitingLimit); err != nil {
		return pipeline.Upload{}, err
	}

	u.JobID, u.Project, u.State, u.Created, u.Expires = j.ID, j.Project, pipeline.UploadOpen, s.now, s.now.Add(ttl)
	s.uploads[u.ID] = &upload{rec: u, jobs: 1}
	s.remember("upload", j.Project, a, u.ID)
	s.duty(pipeline.DutyExpireUpload, u.ID, u.Expires)

	created := s.addJob(j, pipeline.JobUploading)
	created.upload = u.ID

	return u, nil
}

// GetUpload implements [pipeline.UploadStore].
func (s *Store) GetUpload(_ context.Context, id string) (pipeline.Upload, error) {
	defer s.begin()()

	u := s.uploads[id]
	if u == nil {
		return pipeline.Upload{}, noUpload()
	}

	return u.rec, nil
}

// CompleteUpload implements [pipeline.UploadStore].
func (s *Store) CompleteUpload(
	_ context.Context, id string, sizeBytes int64, etag string, first pipeline.NewTask,
) (pipeline.Upload, error) {
	defer s.begin()()

	u := s.uploads[id]

	switch {
	case u == nil:
		return pipeline.Upload{}, noUpload()
	case u.rec.State == pipeline.UploadCompleted:
		return u.rec, nil
	case !s.moveUpload(u, pipeline.UploadComplete):
		return pipeline.Upload{}, uploadEnded(u.rec.State)
	}

	j := s.jobs[u.rec.JobID]
	j.move(pipeline.JobUploaded)
	j.rec.Source.SizeBytes, j.rec.Source.ETag = sizeBytes, etag
	s.startRun(j, first)

	return u.rec, nil
}

// EndUpload implements [pipeline.UploadStore].
func (s *Store) EndUpload(
	_ context.Context, id string, by pipeline.UploadTransition, f pipeline.Failure,
) (pipeline.Upload, error) {
	defer s.begin()()

	u := s.uploads[id]
	if u == nil {
		return pipeline.Upload{}, noUpload()
	}

	if !s.moveUpload(u, by) {
		if end, _ := pipeline.UploadOpen.Next(by); u.rec.State == end {
			return u.rec, nil
		}

		return pipeline.Upload{}, uploadEnded(u.rec.State)
	}

	j := s.jobs[u.rec.JobID]

	if by == pipeline.UploadAbort {
		j.move(pipeline.JobCancel)
		s.endJob(j, pipeline.EventCanceled, &f)
	} else {
		j.move(pipeline.JobUploadFailed)
		s.endJob(j, pipeline.EventFailed, &f)
	}

	s.cleanLater(j)

	return u.rec, nil
}

// moveUpload moves an open upload. One that is complete has no deadline any
// more. Of any other what was stored is to be removed: the duty comes in a
// while, in case whoever ended it doesn't get to that.
func (s *Store) moveUpload(u *upload, by pipeline.UploadTransition) bool {
	to, ok := u.rec.State.Next(by)
	if ok {
		u.rec.State = to

		if to == pipeline.UploadCompleted {
			delete(s.duties, dutyName{pipeline.DutyExpireUpload, u.rec.ID})
		} else {
			s.duty(pipeline.DutyExpireUpload, u.rec.ID, s.now.Add(visibility))
		}
	}

	return ok
}
