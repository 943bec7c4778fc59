package upload

import (
	"context"

	"github.com/oklog/ulid/v2"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const defaultContentType = "application/octet-stream"

// CreateUpload opens an upload and its job.
func (s *Service) CreateUpload(
	ctx context.Context, req *tcoderv1.CreateUploadRequest,
) (*tcoderv1.CreateUploadResponse, error) {
	if err := checkFilename(req.GetFilename()); err != nil {
		return nil, err
	}
	if err := checkSize(req.GetSizeBytes(), s.largest(interceptor.Project(ctx))); err != nil {
		return nil, err
	}
	spec := mapper.SpecFromProto(req.GetSpec())
	if _, err := media.Resolve(spec); err != nil {
		return nil, err
	}
	terms, err := mapper.AdmissionFromProto(req, s.cfg.IdempotencyTTL, s.cfg.WaitingLimit)
	if err != nil {
		return nil, err
	}

	u := s.newUpload(interceptor.Project(ctx), req)
	if u.PartCount > 0 {
		if u.MultipartID, err = s.deps.In.CreateMultipart(ctx, u.ObjectKey, objectstore.MultipartOptions{ContentType: u.ContentType}); err != nil {
			return nil, storeError("create multipart", err)
		}
	}
	job := pipeline.Job{
		ID: u.JobID, Project: u.Project, State: pipeline.JobUploading, Spec: spec,
		Source:   pipeline.Source{ObjectKey: u.ObjectKey, Filename: u.Filename, UploadID: u.ID},
		Priority: int(req.GetPriority()), Labels: req.GetLabels(),
	}
	stored, err := s.deps.Store.CreateUpload(ctx, u, job, s.cfg.Deadline, terms)
	// The multipart upload is one too many if the key was used before, or the
	// upload refused. After any other error nobody knows whether the record
	// names it, so it stays: the object store drops what is never completed.
	reason := pipeline.ReasonOf(err)
	if err == nil && stored.ID != u.ID || reason == pipeline.ReasonIdempotencyKeyReused || reason == pipeline.ReasonQueueFull {
		s.dropMultipart(ctx, u)
	}
	if err != nil {
		return nil, err
	}

	return s.opened(ctx, stored)
}

func (s *Service) newUpload(project string, req *tcoderv1.CreateUploadRequest) pipeline.Upload {
	id := ulid.Make().String()
	contentType := req.GetContentType()
	if contentType == "" {
		contentType = defaultContentType
	}
	plan := planParts(int64(req.GetSizeBytes()), s.cfg.SinglePutBytes)

	return pipeline.Upload{
		ID:            id,
		JobID:         ulid.Make().String(),
		Project:       project,
		State:         pipeline.UploadOpen,
		Filename:      req.GetFilename(),
		SizeBytes:     int64(req.GetSizeBytes()),
		ContentType:   contentType,
		ObjectKey:     media.InputKey(project, id),
		PartSizeBytes: plan.partBytes,
		PartCount:     plan.count,
	}
}

// opened answers with an upload, and with how to send its bytes while it is open.
func (s *Service) opened(ctx context.Context, u pipeline.Upload) (*tcoderv1.CreateUploadResponse, error) {
	res := &tcoderv1.CreateUploadResponse{Upload: mapper.UploadToProto(u)}
	if u.State != pipeline.UploadOpen {
		return res, nil
	}
	var err error
	if u.PartCount == 0 {
		res.Put, err = s.signPut(ctx, u)

		return res, err
	}
	numbers := make([]uint32, 0, maxSignedParts)
	for n := 1; n <= min(u.PartCount, maxSignedParts); n++ {
		numbers = append(numbers, uint32(n))
	}
	res.Parts, err = s.signParts(ctx, u, numbers)

	return res, err
}
