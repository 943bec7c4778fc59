package upload

import (
	"context"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Settle ends an open upload whose deadline has passed: it completes it if
// the store holds all of its bytes after all, because only the client's last
// call got lost, and expires it otherwise, and removes what was stored of it.
// Of an upload that ended without its bytes it removes what is left. One that
// is complete or gone is no error. It is the sweeper's DutyExpireUpload.
func (s *Service) Settle(ctx context.Context, uploadID string) error {
	u, err := s.deps.Store.GetUpload(ctx, uploadID)
	if pipeline.ReasonOf(err) == pipeline.ReasonUploadNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if u.State == pipeline.UploadOpen {
		_, err = s.complete(ctx, u, nil)
		if err == nil {
			return nil
		}
		switch pipeline.ReasonOf(err) {
		case pipeline.ReasonUploadIncomplete, pipeline.ReasonPartListInvalid:
			return s.expire(ctx, u)
		case pipeline.ReasonUploadSizeMismatch, pipeline.ReasonUploadAborted, pipeline.ReasonUploadExpired:
			return nil // it failed by its bytes, or ended meanwhile: either way it is settled
		default:
			return err
		}
	}
	if u.State == pipeline.UploadCompleted {
		return nil
	}

	return s.remove(ctx, u)
}

func (s *Service) expire(ctx context.Context, u pipeline.Upload) error {
	_, err := s.deps.Store.EndUpload(ctx, u.ID, pipeline.UploadExpire,
		pipeline.Failure{Reason: pipeline.ReasonUploadExpired, Message: "the upload's deadline passed before its bytes arrived"})
	if pipeline.ReasonOf(err) == pipeline.ReasonUploadCompleted {
		return nil
	}
	if err != nil {
		return err
	}
	s.deps.Log.InfoContext(ctx, "upload expired", "upload_id", u.ID, "job_id", u.JobID)

	return s.remove(ctx, u)
}
