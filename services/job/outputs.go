package job

import (
	"context"
	"fmt"
	"strconv"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const defaultObjectPageSize = 500

// ListOutputObjects lists the files of a completed job with URLs to read them,
// and of a running one those that can be played already. Any other job has none.
func (s *Service) ListOutputObjects(
	ctx context.Context, req *tcoderv1.ListOutputObjectsRequest,
) (*tcoderv1.ListOutputObjectsResponse, error) {
	j, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return nil, err
	}
	// Outputs of an ended run never change, so a position in them is stable. One
	// in a stream that grows says how much of that there was.
	named := []string{"objects", j.ID, strconv.Itoa(j.Run), string(j.State), req.GetOutput()}
	position, err := pagePosition(req.GetPageToken(), named...)
	if err != nil {
		return nil, err
	}
	var start int
	var version int64
	if position != "" {
		if _, err := fmt.Sscanf(position, "%d %d", &start, &version); err != nil || start < 0 || version < 0 {
			return nil, errPageToken()
		}
	}
	outputs := j.Outputs
	if j.State == pipeline.JobRunning {
		if outputs, version, err = s.growing(ctx, j, version); err != nil {
			return nil, err
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultObjectPageSize
	}
	res := &tcoderv1.ListOutputObjectsResponse{}
	at := 0
	for _, output := range outputs {
		if req.GetOutput() != "" && output.Name != req.GetOutput() {
			continue
		}
		for _, object := range output.Objects {
			at++
			if at <= start {
				continue
			}
			if len(res.GetObjects()) == size {
				res.NextPageToken = pageToken(fmt.Sprintf("%d %d", at-1, version), named...)

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

// growing returns what can be played of a job that runs, as its stream was at
// a version, 0 for now, and that version.
func (s *Service) growing(ctx context.Context, j pipeline.Job, version int64) ([]media.Output, int64, error) {
	if j.Plan == nil || j.Times.Playable.IsZero() {
		return nil, version, nil
	}
	stream, err := s.deps.Store.ReadStream(ctx, j.ID, 0, 0)
	if err != nil {
		return nil, 0, err
	}
	if stream.Run != j.Run {
		return nil, version, nil
	}
	if version == 0 {
		version = stream.Version
	}
	stream.Commits = stream.Commits[:min(version, int64(len(stream.Commits)))]
	growth := stream.Growth(j.Run)
	var outputs []media.Output
	for _, plan := range j.Plan.Outputs {
		if grown := growth.Grow(plan, media.OutputPrefix(j.Project, j.ID, plan.Name), j.Run); grown.Playable {
			outputs = append(outputs, media.Output{Name: plan.Name, Objects: grown.Objects})
		}
	}

	return outputs, version, nil
}
