package upload

import (
	"context"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// cleanupTimeout bounds what is cleaned up after a call that may have been
// canceled.
const cleanupTimeout = 10 * time.Second

// AbortUpload gives an open upload up and removes what was stored of it.
func (s *Service) AbortUpload(
	ctx context.Context, req *tcoderv1.AbortUploadRequest,
) (*tcoderv1.AbortUploadResponse, error) {
	u, err := s.owned(ctx, req.GetUploadId())
	if err != nil {
		return nil, err
	}
	switch u.State {
	case pipeline.UploadCompleted:
		return nil, notOpen(u)
	case pipeline.UploadOpen:
		u, err = s.deps.Store.EndUpload(ctx, u.ID, pipeline.UploadAbort,
			pipeline.Failure{Reason: pipeline.ReasonCanceled, Message: "the upload was aborted"})
		if err != nil {
			return nil, err
		}
	case pipeline.UploadAborted, pipeline.UploadExpired, pipeline.UploadFailed:
		// The repeat of a call whose removal failed removes again.
	}
	if err := s.remove(ctx, u); err != nil {
		return nil, err
	}

	return &tcoderv1.AbortUploadResponse{Upload: mapper.UploadToProto(u)}, nil
}

// remove removes the parts and the object of an upload.
func (s *Service) remove(ctx context.Context, u pipeline.Upload) error {
	if u.MultipartID != "" {
		if err := s.deps.In.AbortMultipart(ctx, u.ObjectKey, u.MultipartID); err != nil {
			return storeError("abort multipart", err)
		}
	}
	if err := s.deps.In.Delete(ctx, u.ObjectKey); err != nil {
		return storeError("delete object", err)
	}

	return nil
}

// dropMultipart drops a multipart upload that no record names, even if the
// caller has gone.
func (s *Service) dropMultipart(ctx context.Context, u pipeline.Upload) {
	if u.MultipartID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := s.deps.In.AbortMultipart(ctx, u.ObjectKey, u.MultipartID); err != nil {
		s.deps.Log.WarnContext(ctx, "a multipart upload without a record stays", "object_key", u.ObjectKey, "error", err)
	}
}
