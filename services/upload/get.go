package upload

import (
	"context"
	"errors"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// GetUpload reads an upload, with the parts that the store holds while it is
// open.
func (s *Service) GetUpload(ctx context.Context, req *tcoderv1.GetUploadRequest) (*tcoderv1.GetUploadResponse, error) {
	u, err := s.owned(ctx, req.GetUploadId())
	if err != nil {
		return nil, err
	}
	res := &tcoderv1.GetUploadResponse{Upload: mapper.UploadToProto(u)}
	if u.State != pipeline.UploadOpen || u.MultipartID == "" {
		return res, nil
	}
	held, err := s.deps.In.ListParts(ctx, u.ObjectKey, u.MultipartID)
	if err != nil && !errors.Is(err, objectstore.ErrUploadNotFound) {
		return nil, storeError("list parts", err)
	}
	for _, p := range held {
		res.Parts = append(res.Parts, mapper.PartToProto(p))
	}

	return res, nil
}
