package upload

import (
	"context"
	"fmt"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// SignUploadParts presigns parts of an open multipart upload.
func (s *Service) SignUploadParts(
	ctx context.Context, req *tcoderv1.SignUploadPartsRequest,
) (*tcoderv1.SignUploadPartsResponse, error) {
	u, err := s.owned(ctx, req.GetUploadId())
	if err != nil {
		return nil, err
	}
	if u.State != pipeline.UploadOpen {
		return nil, notOpen(u)
	}
	for i, n := range req.GetPartNumbers() {
		if int(n) > u.PartCount {
			return nil, partError(fmt.Sprintf("part_numbers[%d]", i),
				fmt.Sprintf("the upload has %d parts, not %d", u.PartCount, n))
		}
	}
	parts, err := s.signParts(ctx, u, req.GetPartNumbers())
	if err != nil {
		return nil, err
	}

	return &tcoderv1.SignUploadPartsResponse{Parts: parts}, nil
}

// signPut signs the one PUT of a small upload: of its exact size and type,
// and only as long as nothing is there.
func (s *Service) signPut(ctx context.Context, u pipeline.Upload) (*tcoderv1.SignedRequest, error) {
	signed, err := s.deps.In.PresignPut(ctx, objectstore.PutRequest{
		Key: u.ObjectKey, SizeBytes: u.SizeBytes, ContentType: u.ContentType, Expires: s.cfg.URLExpiry, IfNoneMatch: true,
	})
	if err != nil {
		return nil, storeError("presign put", err)
	}

	return mapper.SignedRequestToProto(signed), nil
}

// signParts signs parts by their numbers, which the upload has.
func (s *Service) signParts(ctx context.Context, u pipeline.Upload, numbers []uint32) ([]*tcoderv1.SignedPart, error) {
	parts := make([]*tcoderv1.SignedPart, 0, len(numbers))
	for _, n := range numbers {
		offset, size := partSpan(u, int(n))
		signed, err := s.deps.In.PresignPart(ctx, u.ObjectKey, u.MultipartID, int(n), size, s.cfg.URLExpiry)
		if err != nil {
			return nil, storeError("presign part", err)
		}
		parts = append(parts, &tcoderv1.SignedPart{
			PartNumber:  n,
			OffsetBytes: uint64(offset),
			SizeBytes:   uint64(size),
			Request:     mapper.SignedRequestToProto(signed),
		})
	}

	return parts, nil
}

// notOpen says how an upload that is no longer open ended.
func notOpen(u pipeline.Upload) error {
	switch u.State {
	case pipeline.UploadCompleted:
		return pipeline.NewError(pipeline.ReasonUploadCompleted, "the upload is already complete")
	case pipeline.UploadAborted:
		return pipeline.NewError(pipeline.ReasonUploadAborted, "the upload was aborted")
	case pipeline.UploadExpired:
		return pipeline.NewError(pipeline.ReasonUploadExpired, "the upload's deadline has passed")
	case pipeline.UploadFailed:
		return pipeline.NewError(pipeline.ReasonUploadSizeMismatch, "the object's size differed from the declared one")
	default:
		return fmt.Errorf("upload %s is %s", u.ID, u.State)
	}
}

// partError refuses a part list for one of its fields.
func partError(field, description string) error {
	return &pipeline.Error{
		Reason: pipeline.ReasonPartListInvalid, Message: description,
		Fields: []pipeline.FieldViolation{{Field: field, Description: description}},
	}
}
