package tcoder

import (
	"context"
	"iter"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// JobOptions are the wishes for a job on an object that is already stored.
type JobOptions struct {
	// Spec is what to produce; nil means the preset `default`.
	Spec *tcoderv1.JobSpec
	// IdempotencyKey makes a second call return the first one's job. Empty:
	// one is made up, so that retries within the call are safe.
	IdempotencyKey string
	// Priority starts a job before others of lower priority. -100 to 100.
	Priority int32
	// Labels are the caller's own data.
	Labels map[string]string
}

// CreateJob starts a job on an object of the input bucket.
//
// QUEUE_FULL, here and where an upload is opened, says that the project has as
// many waiting jobs as it may: it isn't waited for, since only the caller knows
// what can wait. Its [Error.RetryAfter] says when the same call can succeed.
func (c *Client) CreateJob(ctx context.Context, objectKey string, opts JobOptions) (*tcoderv1.Job, error) {
	if opts.IdempotencyKey == "" {
		opts.IdempotencyKey = newIdempotencyKey()
	}
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.CreateJob, &tcoderv1.CreateJobRequest{
		ObjectKey:      objectKey,
		Spec:           opts.Spec,
		IdempotencyKey: opts.IdempotencyKey,
		Priority:       opts.Priority,
		Labels:         opts.Labels,
	})

	return res.GetJob(), err
}

// GetJob reads a job with its tasks and attempts.
func (c *Client) GetJob(ctx context.Context, jobID string) (*tcoderv1.Job, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.GetJob, &tcoderv1.GetJobRequest{JobId: jobID})

	return res.GetJob(), err
}

// JobFilter chooses jobs of a list. Its zero value is all of them.
type JobFilter struct {
	// States are the states that a job may be in; none means all.
	States []tcoderv1.JobState
	// Reasons are those that a job may have failed or been canceled for; none
	// means all jobs.
	Reasons []tcoderv1.ErrorReason
}

// ListJobs yields the jobs of a filter, newest first, and reads pages as it
// goes. The first error ends it.
func (c *Client) ListJobs(ctx context.Context, filter JobFilter) iter.Seq2[*tcoderv1.Job, error] {
	return pages(func(token string) ([]*tcoderv1.Job, string, error) {
		res, err := call(ctx, c, defaultCallTimeout, c.jobs.ListJobs,
			&tcoderv1.ListJobsRequest{States: filter.States, Reasons: filter.Reasons, PageToken: token})

		return res.GetJobs(), res.GetNextPageToken(), err
	})
}

// CancelJob stops a live job. Canceling a canceled job is no error.
func (c *Client) CancelJob(ctx context.Context, jobID string) (*tcoderv1.Job, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.CancelJob, &tcoderv1.CancelJobRequest{JobId: jobID})

	return res.GetJob(), err
}

// RetryOption changes what a retry of a job means.
type RetryOption func(*tcoderv1.RetryJobRequest)

// AfterRun names the run that the caller saw end. A job whose next run has
// begun already is returned as it is, whoever began it.
func AfterRun(run uint32) RetryOption {
	return func(r *tcoderv1.RetryJobRequest) { r.Run = run }
}

// RetryJob starts a failed or canceled job again. Without [AfterRun] it reads
// first at which run the job is, so that the call may be repeated when an
// answer is lost. Errors: QUEUE_FULL, as in [Client.CreateJob].
func (c *Client) RetryJob(ctx context.Context, jobID string, opts ...RetryOption) (*tcoderv1.Job, error) {
	req := &tcoderv1.RetryJobRequest{JobId: jobID}
	for _, opt := range opts {
		opt(req)
	}
	if req.GetRun() == 0 {
		job, err := c.GetJob(ctx, jobID)
		if err != nil {
			return nil, err
		}
		req.Run = job.GetRun()
	}
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.RetryJob, req)

	return res.GetJob(), err
}

// DeleteJob removes a finished job with its outputs, and its source if that came
// by upload and no other job has it.
func (c *Client) DeleteJob(ctx context.Context, jobID string) error {
	attempts := 0
	remove := func(ctx context.Context, req *tcoderv1.DeleteJobRequest) (*tcoderv1.DeleteJobResponse, error) {
		attempts++
		res, err := c.jobs.DeleteJob(ctx, req)
		if attempts > 1 && connect.CodeOf(err) == connect.CodeNotFound {
			return &tcoderv1.DeleteJobResponse{}, nil // the attempt before removed it and its answer was lost
		}

		return res, err //nolint:wrapcheck // call makes an Error of it
	}
	_, err := call(ctx, c, defaultCallTimeout, remove, &tcoderv1.DeleteJobRequest{JobId: jobID})

	return err
}

// Presets lists the presets with everything they resolve to.
func (c *Client) Presets(ctx context.Context) ([]*tcoderv1.Preset, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.ListPresets, &tcoderv1.ListPresetsRequest{})

	return res.GetPresets(), err
}

// Outputs yields the files of a completed job with URLs to read them, or of a
// running one those that can be played already, and reads pages as it goes. The URLs are secrets until they expire.
func (c *Client) Outputs(ctx context.Context, jobID string) iter.Seq2[*tcoderv1.ReadableObject, error] {
	return pages(func(token string) ([]*tcoderv1.ReadableObject, string, error) {
		return c.outputPage(ctx, jobID, "", token)
	})
}

func (c *Client) outputPage(ctx context.Context, jobID, output, token string) (
	[]*tcoderv1.ReadableObject, string, error,
) {
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.ListOutputObjects,
		&tcoderv1.ListOutputObjectsRequest{JobId: jobID, Output: output, PageToken: token})

	return res.GetObjects(), res.GetNextPageToken(), err
}

// pages yields the items of all pages; read gets the token of a page.
func pages[T any](read func(token string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for token := ""; ; {
			items, next, err := read(token)
			if err != nil {
				var none T
				yield(none, err)

				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}
