package redisstore

import (
	"context"
	"strconv"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// CreateUpload implements [pipeline.UploadStore].
func (s *Store) CreateUpload(
	ctx context.Context, u pipeline.Upload, j pipeline.Job, ttl time.Duration, a pipeline.Admission,
) (pipeline.Upload, error) {
	rawUpload, err := encode(uploadSpec{
		Filename: u.Filename, SizeBytes: u.SizeBytes, ContentType: u.ContentType, ObjectKey: u.ObjectKey,
		MultipartID: u.MultipartID, PartSizeBytes: u.PartSizeBytes, PartCount: u.PartCount,
	})
	if err != nil {
		return pipeline.Upload{}, err
	}

	rawJob, err := encodeSpec(j)
	if err != nil {
		return pipeline.Upload{}, err
	}

	k := []string{s.keys.upload(u.ID), s.keys.job(j.ID), s.keys.spec(j.ID)}
	if a.IdempotencyKey != "" {
		k = append(k, s.keys.idempotency("upload", j.Project, a.IdempotencyKey))
	}

	return s.uploadCall(ctx, "create_upload", k, u.ID, j.ID, j.Project, j.Priority, rawUpload, rawJob, millis(ttl),
		a.WaitingLimit, a.Fingerprint, millis(max(a.KeyTTL, time.Millisecond)))
}

// GetUpload implements [pipeline.UploadStore].
func (s *Store) GetUpload(ctx context.Context, id string) (pipeline.Upload, error) {
	row, err := s.client.HMGet(ctx, s.keys.upload(id), "s", "j", "p", "d", "c", "x").Result()
	if err != nil {
		return pipeline.Upload{}, failed("get upload", err)
	}

	return decodeUpload(id, row)
}

// CompleteUpload implements [pipeline.UploadStore].
func (s *Store) CompleteUpload(
	ctx context.Context, id string, sizeBytes int64, etag string, first pipeline.NewTask,
) (pipeline.Upload, error) {
	raw, weight, err := encodeFirst(first)
	if err != nil {
		return pipeline.Upload{}, err
	}

	return s.uploadCall(ctx, "complete_upload", []string{s.keys.upload(id)}, id,
		strconv.FormatInt(sizeBytes, 10)+" "+etag, raw, weight)
}

// EndUpload implements [pipeline.UploadStore].
func (s *Store) EndUpload(
	ctx context.Context, id string, by pipeline.UploadTransition, f pipeline.Failure,
) (pipeline.Upload, error) {
	return s.uploadCall(ctx, "end_upload", []string{s.keys.upload(id)}, id, string(by), string(f.Reason), f.Message)
}

// uploadCall runs a script that returns an upload.
func (s *Store) uploadCall(ctx context.Context, verb string, k []string, args ...any) (pipeline.Upload, error) {
	reply, err := s.callRows(ctx, 2, verb, k, args...)
	if err != nil {
		return pipeline.Upload{}, err
	}

	return decodeUpload(asString(reply[0]), asList(reply[1]))
}
