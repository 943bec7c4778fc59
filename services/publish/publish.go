// Package publish writes what players open. While a job runs, it publishes the
// segments that its attempts have committed so far, in playlists that grow;
// when its tasks are all done, it writes the final ones and completes the job
// in the store.
//
// It may run on several replicas at once and any number of times: manifests
// are computed from what is stored alone, and one takes the place of another
// only if it is newer, which the object store itself decides in one step with
// the write. So every run ends with the same bytes, and the store completes a
// job once. A crash in the middle leaves the duty to publish, which the sweeper
// hands out again.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// cleanupTimeout bounds the removal of manifests that lost their job.
const cleanupTimeout = 30 * time.Second

// Jobs is what publishing needs of the store.
type Jobs interface {
	GetJob(ctx context.Context, id string) (pipeline.Job, error)
	CompleteJob(ctx context.Context, id string, run int, outputs []media.Output) (bool, error)
	ReadStream(ctx context.Context, id string, run int, after int64) (pipeline.Stream, error)
	StreamPublished(ctx context.Context, p pipeline.Publication) (bool, error)
}

// Publisher publishes jobs.
type Publisher struct {
	jobs  Jobs
	out   objectstore.Objects
	log   *slog.Logger
	views views
}

// New returns a Publisher that writes to the output bucket.
func New(jobs Jobs, out objectstore.Objects, log *slog.Logger) *Publisher {
	return &Publisher{jobs: jobs, out: out, log: log, views: views{jobs: map[string]*view{}}}
}

// Publish publishes a job if all tasks of its run are done, and does nothing
// for a job that isn't there, isn't running or isn't done yet. After an error
// it can be called again.
func (p *Publisher) Publish(ctx context.Context, jobID string) error {
	job, err := p.jobs.GetJob(ctx, jobID)
	if err != nil {
		if pipeline.ReasonOf(err) == pipeline.ReasonJobNotFound {
			return nil
		}
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if !done(job) {
		return nil
	}
	growth, err := p.committed(ctx, job)
	if err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	outputs, manifests, err := assemble(job, growth)
	if err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if err := spaced(ctx, job.Streamed); err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if err := p.write(ctx, manifests, etags{}); err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	completed, err := p.jobs.CompleteJob(ctx, job.ID, job.Run, outputs)
	if err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if !completed {
		var keys []string
		for _, m := range manifests {
			keys = append(keys, m.Key)
		}
		if err := p.withdraw(ctx, jobID, job.Run, keys); err != nil {
			return fmt.Errorf("publish job %s: %w", jobID, err)
		}
		return nil
	}
	p.log.InfoContext(ctx, "job published", "job_id", jobID, "run", job.Run,
		"outputs", len(outputs), "manifests", len(manifests))
	return nil
}

// spaced returns once a key may be written again that was written at a time.
func spaced(ctx context.Context, written time.Time) error {
	left := min(pipeline.StreamEvery, time.Until(written.Add(pipeline.StreamEvery)))
	if written.IsZero() || left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// done reports whether a job runs and all tasks of its run are done.
func done(job pipeline.Job) bool {
	return job.State == pipeline.JobRunning && !slices.ContainsFunc(job.Tasks, func(t pipeline.Task) bool {
		return t.Run == job.Run && t.State != pipeline.TaskDone
	})
}

// committed returns what lost attempts of a job's tasks have committed, which
// may have been published. Where every task is done by its first attempt, the
// results name all of it.
func (p *Publisher) committed(ctx context.Context, job pipeline.Job) (*media.Growth, error) {
	if !pipeline.Repeated(job) {
		return &media.Growth{}, nil
	}
	s, err := p.jobs.ReadStream(ctx, job.ID, 0, 0)
	if err != nil {
		return nil, err
	}
	return s.Growth(job.Run), nil
}

// assemble computes what a job publishes. An error says that its tasks don't
// make what was planned, which somebody has to look at.
func assemble(job pipeline.Job, growth *media.Growth) ([]media.Output, []media.Manifest, error) {
	if job.Plan == nil || len(job.Plan.Outputs) == 0 {
		return nil, nil, errors.New("its tasks are done and it has no plan")
	}
	parts := pipeline.Parts(job, growth)
	var outputs []media.Output
	var manifests []media.Manifest
	for _, plan := range job.Plan.Outputs {
		if plan.Intermediate {
			continue
		}
		if len(parts[plan.Name]) == 0 {
			return nil, nil, fmt.Errorf("its tasks are done and made nothing of output %s", plan.Name)
		}
		output, files := media.Assemble(plan, parts[plan.Name], media.OutputPrefix(job.Project, job.ID, plan.Name), job.Run)
		outputs = append(outputs, output)
		manifests = append(manifests, files...)
	}
	return outputs, manifests, nil
}

// withdraw removes the manifests of a job's run that ended without success, or
// was deleted: those that are written while it ends may come after what cleans
// up. Those of a job that completed, or runs again, are not this run's any more.
func (p *Publisher) withdraw(ctx context.Context, jobID string, run int, keys []string) error {
	job, err := p.jobs.GetJob(ctx, jobID)
	if err != nil && pipeline.ReasonOf(err) != pipeline.ReasonJobNotFound {
		return err
	}
	if err == nil && (job.Run != run || job.State != pipeline.JobFailed && job.State != pipeline.JobCanceled) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for _, key := range keys {
		if err := p.out.Delete(ctx, key); err != nil {
			return fmt.Errorf("withdraw: %w", err)
		}
	}
	return nil
}
