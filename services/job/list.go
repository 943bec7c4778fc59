package job

import (
	"context"
	"slices"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const defaultPageSize = 50

// ListJobs lists the jobs of the caller's project, newest first. A page
// begins below the last id of the one before, so jobs that arrive meanwhile
// change nothing.
func (s *Service) ListJobs(ctx context.Context, req *tcoderv1.ListJobsRequest) (*tcoderv1.ListJobsResponse, error) {
	filter := pipeline.JobFilter{Project: interceptor.Project(ctx)}
	for _, state := range req.GetStates() {
		filter.States = append(filter.States, mapper.JobStateFromProto(state))
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	named := []string{"jobs", filter.Project}
	for _, state := range slices.Sorted(slices.Values(filter.States)) {
		named = append(named, string(state))
	}
	var err error
	if filter.Before, err = pagePosition(req.GetPageToken(), named...); err != nil {
		return nil, err
	}
	filter.Limit = size + 1 // one more tells whether there is a next page
	jobs, err := s.deps.Store.ListJobs(ctx, filter)
	if err != nil {
		return nil, err
	}
	res := &tcoderv1.ListJobsResponse{}
	for _, j := range jobs[:min(size, len(jobs))] {
		res.Jobs = append(res.Jobs, mapper.JobToProto(j))
	}
	if len(jobs) > size {
		res.NextPageToken = pageToken(jobs[size-1].ID, named...)
	}

	return res, nil
}
