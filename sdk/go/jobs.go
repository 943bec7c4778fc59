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

// ListJobs yields the jobs in the given states, newest first, and reads pages
// as it goes. No states means all. The first error ends it.
func (c *Client) ListJobs(ctx context.Context, states ...tcoderv1.JobState) iter.Seq2[*tcoderv1.Job, error] {
	return pages(func(token string) ([]*tcoderv1.Job, string, error) {
		res, err := call(ctx, c, defaultCallTimeout, c.jobs.ListJobs,
			&tcoderv1.ListJobsRequest{States: states, PageToken: token})

		return res.GetJobs(), res.GetNextPageToken(), err
	})
}

// CancelJob stops a live job. Canceling a canceled job is no error.
func (c *Client) CancelJob(ctx context.Context, jobID string) (*tcoderv1.Job, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.jobs.CancelJob, &tcoderv1.CancelJobRequest{JobId: jobID})

	return res.GetJob(), err
}

// RetryJob starts a failed or canceled job again. It is not repeated when its
// answer is lost: the job may be running again.
func (c *Client) RetryJob(ctx context.Context, jobID string) (*tcoderv1.Job, error) {
	res, err := callOnce(ctx, c, c.jobs.RetryJob, &tcoderv1.RetryJobRequest{JobId: jobID})

	return res.GetJob(), err
}

// DeleteJob removes a finished job with its source and its outputs.
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

// Outputs yields the files of a completed job with URLs to read them, and
// reads pages as it goes. The URLs are secrets until they expire.
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

// Pool reads the pool: its limit, what runs and what waits.
func (c *Client) Pool(ctx context.Context) (*tcoderv1.GetPoolResponse, error) {
	return call(ctx, c, defaultCallTimeout, c.pool.GetPool, &tcoderv1.GetPoolRequest{})
}

// Workers lists the workers by id.
func (c *Client) Workers(ctx context.Context) ([]*tcoderv1.Worker, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.ListWorkers, &tcoderv1.ListWorkersRequest{})

	return res.GetWorkers(), err
}

// Machines lists the pool's machines by id.
func (c *Client) Machines(ctx context.Context) ([]*tcoderv1.Machine, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.ListMachines, &tcoderv1.ListMachinesRequest{})

	return res.GetMachines(), err
}

// DrainWorker tells a worker to finish what ends soon, hand back the rest, and
// exit.
func (c *Client) DrainWorker(ctx context.Context, workerID string) (*tcoderv1.Worker, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.DrainWorker,
		&tcoderv1.DrainWorkerRequest{WorkerId: workerID})

	return res.GetWorker(), err
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
