package job

import (
	"context"
	"slices"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const (
	defaultPageSize = 50
	// A list by reasons looks at so many jobs at most, in steps: the store
	// knows the states of jobs by heart, and has to read them for more.
	maxLookedAt  = 1000
	lookedAtOnce = 250
)

// ListJobs lists the jobs of the caller's project, newest first. A page
// begins below the last id that the one before looked at, so jobs that arrive
// meanwhile change nothing.
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
	var reasons []pipeline.Reason
	for _, reason := range req.GetReasons() {
		reasons = append(reasons, mapper.ReasonFromProto(reason))
	}
	for _, reason := range slices.Sorted(slices.Values(reasons)) {
		named = append(named, "reason "+string(reason))
	}
	var err error
	if filter.Before, err = pagePosition(req.GetPageToken(), named...); err != nil {
		return nil, err
	}
	read := s.listAll
	if len(reasons) > 0 {
		read = func(ctx context.Context, f pipeline.JobFilter, size int) ([]pipeline.Job, string, error) {
			return s.listFailed(ctx, f, reasons, size)
		}
	}
	jobs, next, err := read(ctx, filter, size)
	if err != nil {
		return nil, err
	}
	res := &tcoderv1.ListJobsResponse{}
	for _, j := range jobs {
		res.Jobs = append(res.Jobs, s.message(j))
	}
	if next != "" {
		res.NextPageToken = pageToken(next, named...)
	}

	return res, nil
}

// listAll returns a page, and where the next one begins; nothing on the last.
func (s *Service) listAll(ctx context.Context, f pipeline.JobFilter, size int) ([]pipeline.Job, string, error) {
	f.Limit = size + 1 // one more tells whether there is a next page
	jobs, err := s.deps.Store.ListJobs(ctx, f)
	if err != nil || len(jobs) <= size {
		return jobs, "", err
	}

	return jobs[:size], jobs[size-1].ID, nil
}

// listFailed is listAll of those jobs that ended for one of some reasons. It
// stops where the page is full or it has looked at enough.
func (s *Service) listFailed(
	ctx context.Context, f pipeline.JobFilter, reasons []pipeline.Reason, size int,
) ([]pipeline.Job, string, error) {
	ended := []pipeline.JobState{pipeline.JobFailed, pipeline.JobCanceled}
	if len(f.States) > 0 {
		ended = slices.DeleteFunc(ended, func(s pipeline.JobState) bool { return !slices.Contains(f.States, s) })
	}
	if len(ended) == 0 {
		return nil, "", nil // the others have no failure
	}
	f.States = ended
	var found []pipeline.Job
	for looked := 0; looked < maxLookedAt; looked += lookedAtOnce {
		jobs, next, err := s.listAll(ctx, f, lookedAtOnce)
		if err != nil {
			return nil, "", err
		}
		for i, j := range jobs {
			if j.Failure == nil || !slices.Contains(reasons, j.Failure.Reason) {
				continue
			}
			if found = append(found, j); len(found) == size && (next != "" || i < len(jobs)-1) {
				return found, j.ID, nil
			}
		}
		if f.Before = next; next == "" {
			return found, "", nil
		}
	}

	return found, f.Before, nil
}
