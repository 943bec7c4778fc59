package upload

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// maxNamedParts is how many missing parts an error names.
const maxNamedParts = 20

// CompleteUpload checks that the bytes are in the store and starts the job.
func (s *Service) CompleteUpload(
	ctx context.Context, req *tcoderv1.CompleteUploadRequest,
) (*tcoderv1.CompleteUploadResponse, error) {
	u, err := s.owned(ctx, req.GetUploadId())
	if err != nil {
		return nil, err
	}
	switch u.State {
	case pipeline.UploadCompleted:
	case pipeline.UploadOpen:
		if err := checkClaimed(u, req.GetParts()); err != nil {
			return nil, err
		}
		if u, err = s.complete(ctx, u, req.GetParts()); err != nil {
			return nil, err
		}
	default:
		return nil, notOpen(u)
	}
	job, err := s.deps.Store.GetJob(ctx, u.JobID)
	if err != nil {
		return nil, err
	}

	return &tcoderv1.CompleteUploadResponse{Upload: mapper.UploadToProto(u), Job: mapper.JobToProto(job)}, nil
}

// checkClaimed refuses a client's part list that doesn't name each part of
// the upload once. An empty one claims nothing.
func checkClaimed(u pipeline.Upload, claimed []*tcoderv1.UploadedPart) error {
	if len(claimed) == 0 {
		return nil
	}
	seen := make(map[uint32]bool, len(claimed))
	for i, p := range claimed {
		field := fmt.Sprintf("parts[%d].part_number", i)
		if int(p.GetPartNumber()) > u.PartCount {
			return partError(field, fmt.Sprintf("the upload has %d parts, not %d", u.PartCount, p.GetPartNumber()))
		}
		if seen[p.GetPartNumber()] {
			return partError(field, fmt.Sprintf("part %d is named twice", p.GetPartNumber()))
		}
		seen[p.GetPartNumber()] = true
	}
	for n := uint32(1); int(n) <= u.PartCount; n++ {
		if !seen[n] {
			return partError("parts", fmt.Sprintf("part %d is not named", n))
		}
	}

	return nil
}

// complete completes an open upload from what the object store holds of it.
// The claimed parts, if any, must be those.
func (s *Service) complete(
	ctx context.Context, u pipeline.Upload, claimed []*tcoderv1.UploadedPart,
) (pipeline.Upload, error) {
	if u.PartCount > 0 {
		if err := s.assemble(ctx, u, claimed); err != nil {
			return pipeline.Upload{}, err
		}
	}
	object, err := s.deps.In.Head(ctx, u.ObjectKey)
	switch {
	case errors.Is(err, objectstore.ErrNotFound):
		return pipeline.Upload{}, pipeline.NewError(pipeline.ReasonUploadIncomplete, "the store has no object for this upload yet")
	case err != nil:
		return pipeline.Upload{}, storeError("head upload", err)
	case object.SizeBytes != u.SizeBytes:
		return pipeline.Upload{}, s.mismatch(ctx, u, object.SizeBytes)
	}
	done, err := s.deps.Store.CompleteUpload(ctx, u.ID, object.SizeBytes, object.ETag, pipeline.NewTask{Kind: pipeline.KindProbe})
	switch pipeline.ReasonOf(err) {
	default:
	case pipeline.ReasonUploadAborted, pipeline.ReasonUploadExpired, pipeline.ReasonUploadSizeMismatch:
		// It ended while its parts were put together: nothing names the object.
		if cleanErr := s.remove(ctx, u); cleanErr != nil {
			s.deps.Log.WarnContext(ctx, "the object of an ended upload stays", "upload_id", u.ID, "job_id", u.JobID, "error", cleanErr)
		}
	}

	return done, err
}

// assemble puts the parts of an upload together. That they are no longer
// there is no error: they may be an object already, which HEAD will tell.
func (s *Service) assemble(ctx context.Context, u pipeline.Upload, claimed []*tcoderv1.UploadedPart) error {
	held, err := s.deps.In.ListParts(ctx, u.ObjectKey, u.MultipartID)
	if errors.Is(err, objectstore.ErrUploadNotFound) {
		return nil
	}
	if err != nil {
		return storeError("list parts", err)
	}
	if err := checkHeld(u, held, claimed); err != nil {
		return err
	}
	err = s.deps.In.CompleteMultipart(ctx, u.ObjectKey, u.MultipartID, held)
	switch {
	case err == nil, errors.Is(err, objectstore.ErrUploadNotFound):
		return nil
	case errors.Is(err, objectstore.ErrInvalidPart):
		return &pipeline.Error{
			Reason: pipeline.ReasonPartListInvalid, Message: "the store refused the parts: one changed meanwhile", Cause: err,
		}
	default:
		return storeError("complete multipart", err)
	}
}

// checkHeld compares the parts that the store holds with the plan, and with
// what the client claims.
func checkHeld(u pipeline.Upload, held []objectstore.Part, claimed []*tcoderv1.UploadedPart) error {
	byNumber := make(map[int]objectstore.Part, len(held))
	for _, p := range held {
		byNumber[p.Number] = p
	}
	var missing []string
	for n := 1; n <= u.PartCount; n++ {
		part, ok := byNumber[n]
		if _, size := partSpan(u, n); !ok || part.SizeBytes != size {
			missing = append(missing, strconv.Itoa(n))
		}
	}
	if len(missing) > 0 {
		named := missing[:min(len(missing), maxNamedParts)]

		return &pipeline.Error{
			Reason:  pipeline.ReasonUploadIncomplete,
			Message: fmt.Sprintf("the store lacks %d of %d parts", len(missing), u.PartCount),
			Metadata: map[string]string{
				"missing_parts": strings.Join(named, ","), "missing_count": strconv.Itoa(len(missing)),
			},
		}
	}
	for i, p := range claimed {
		if strings.Trim(p.GetEtag(), `"`) != byNumber[int(p.GetPartNumber())].ETag {
			return partError(fmt.Sprintf("parts[%d].etag", i), fmt.Sprintf("the store holds another part %d", p.GetPartNumber()))
		}
	}

	return nil
}

// mismatch fails an upload whose object has another size than declared, and
// removes the object. It returns the refusal.
func (s *Service) mismatch(ctx context.Context, u pipeline.Upload, actualBytes int64) error {
	message := fmt.Sprintf("%d bytes arrived, %d were declared", actualBytes, u.SizeBytes)
	_, err := s.deps.Store.EndUpload(ctx, u.ID, pipeline.UploadFail,
		pipeline.Failure{Reason: pipeline.ReasonUploadSizeMismatch, Message: message})
	if err != nil {
		return err
	}
	if err := s.remove(ctx, u); err != nil {
		s.deps.Log.WarnContext(ctx, "the object of a failed upload stays", "upload_id", u.ID, "job_id", u.JobID, "error", err)
	}

	return &pipeline.Error{
		Reason: pipeline.ReasonUploadSizeMismatch, Message: message,
		Metadata: map[string]string{
			"upload_id":      u.ID,
			"declared_bytes": strconv.FormatInt(u.SizeBytes, 10),
			"actual_bytes":   strconv.FormatInt(actualBytes, 10),
		},
	}
}
