package job

import (
	"context"
	"errors"
	"fmt"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// CancelJob stops a live job. The store takes its tasks from their workers;
// what was stored of an open upload is removed here.
func (s *Service) CancelJob(ctx context.Context, req *tcoderv1.CancelJobRequest) (*tcoderv1.CancelJobResponse, error) {
	before, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return nil, err
	}
	j, err := s.deps.Store.CancelJob(ctx, before.ID)
	if err != nil {
		return nil, err
	}
	if before.State == pipeline.JobUploading {
		if err := s.deps.SettleUpload(ctx, before.Source.UploadID); err != nil {
			s.deps.Log.WarnContext(ctx, "the parts of a canceled upload stay",
				"job_id", j.ID, "upload_id", before.Source.UploadID, "error", err)
		}
	}

	return &tcoderv1.CancelJobResponse{Job: s.message(j)}, nil
}

// RetryJob starts a new run of a failed or canceled job. One whose source is
// no longer there could only fail again, so it is refused. A caller that names
// the run it saw end may repeat the call: whatever became of the next run, it
// isn't followed by another.
func (s *Service) RetryJob(ctx context.Context, req *tcoderv1.RetryJobRequest) (*tcoderv1.RetryJobResponse, error) {
	j, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return nil, err
	}
	run := j.Run
	if req.GetRun() != 0 {
		run = int(req.GetRun())
	}
	switch {
	case run < j.Run:
		return &tcoderv1.RetryJobResponse{Job: s.message(j)}, nil
	case run > j.Run:
		return nil, &pipeline.Error{
			Reason: pipeline.ReasonRequestInvalid, Message: fmt.Sprintf("run: the job is at run %d", j.Run),
			Fields: []pipeline.FieldViolation{{Field: "run", Description: "must be a run that the job had"}},
		}
	case j.State == pipeline.JobFailed, j.State == pipeline.JobCanceled:
		if err := s.checkSource(ctx, j.Source); err != nil {
			return nil, err
		}
	}
	j, err = s.deps.Store.RetryJob(ctx, j.ID, run, firstTask(), s.cfg.WaitingLimit)
	if err != nil {
		return nil, err
	}

	return &tcoderv1.RetryJobResponse{Job: s.message(j)}, nil
}

// checkSource refuses a source that isn't there or isn't the one that the job
// began with.
func (s *Service) checkSource(ctx context.Context, source pipeline.Source) error {
	missing := func(message string) error {
		return &pipeline.Error{
			Reason: pipeline.ReasonInputMissing, Message: message, Metadata: map[string]string{"object_key": source.ObjectKey},
		}
	}
	if source.ETag == "" {
		return missing("the job's upload never completed")
	}
	object, err := s.deps.In.Head(ctx, source.ObjectKey)
	switch {
	case errors.Is(err, objectstore.ErrNotFound):
		return missing("the job's source was removed from the store")
	case err != nil:
		return storeError("head source", err)
	case object.ETag != source.ETag:
		return missing("the job's source was replaced in the store")
	}

	return nil
}

// DeleteJob removes a terminal job. Its objects are removed by the sweeper,
// soon after.
func (s *Service) DeleteJob(ctx context.Context, req *tcoderv1.DeleteJobRequest) (*tcoderv1.DeleteJobResponse, error) {
	j, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return nil, err
	}
	if err := s.deps.Store.DeleteJob(ctx, j.ID); err != nil {
		return nil, err
	}

	return &tcoderv1.DeleteJobResponse{}, nil
}
