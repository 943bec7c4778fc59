package job

import (
	"context"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// GetJob reads a job with its tasks and attempts.
func (s *Service) GetJob(ctx context.Context, req *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
	j, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return nil, err
	}

	return &tcoderv1.GetJobResponse{Job: s.message(j)}, nil
}
