package job

import (
	"context"
	"strconv"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const defaultObjectPageSize = 500

// ListOutputObjects lists the files of a completed job with URLs to read
// them. A job that failed or was canceled has none.
func (s *Service) ListOutputObjects(
	ctx context.Context, req *tcoderv1.ListOutputObjectsRequest,
) (*tcoderv1.ListOutputObjectsResponse, error) {
	j, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return nil, err
	}
	if !j.State.Terminal() {
		return nil, pipeline.NewError(pipeline.ReasonJobNotTerminal, "the job has not ended")
	}
	// Outputs of a run never change, so a position in them is stable.
	named := []string{"objects", j.ID, strconv.Itoa(j.Run), req.GetOutput()}
	position, err := pagePosition(req.GetPageToken(), named...)
	if err != nil {
		return nil, err
	}
	start := 0
	if position != "" {
		if start, err = strconv.Atoi(position); err != nil {
			return nil, errPageToken()
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultObjectPageSize
	}
	res := &tcoderv1.ListOutputObjectsResponse{}
	at := 0
	for _, output := range j.Outputs {
		if req.GetOutput() != "" && output.Name != req.GetOutput() {
			continue
		}
		for _, object := range output.Objects {
			at++
			if at <= start {
				continue
			}
			if len(res.GetObjects()) == size {
				res.NextPageToken = pageToken(strconv.Itoa(at-1), named...)

				return res, nil
			}
			signed, err := s.deps.Out.PresignGet(ctx, object.Key, objectstore.GetOptions{Expires: s.cfg.URLExpiry})
			if err != nil {
				return nil, storeError("presign get", err)
			}
			request := mapper.SignedRequestToProto(signed)
			res.Objects = append(res.Objects, &tcoderv1.ReadableObject{
				Output: output.Name, Object: mapper.OutputObjectToProto(object),
				Url: request.GetUrl(), ExpiresAt: request.GetExpiresAt(),
			})
		}
	}

	return res, nil
}
