// Package publish turns a job whose tasks are all done into a published one:
// it writes the manifests that name the committed objects, then completes the
// job in the store.
//
// It may run on several replicas at once and any number of times: manifests
// are computed from the stored results alone, so every run writes the same
// bytes, and the store completes a job once. A crash in the middle leaves the
// job RUNNING with its duty to publish, which the sweeper hands out again.
package publish

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// writesAtOnce bounds the manifests written at a time.
	writesAtOnce = 8
	// cleanupTimeout bounds the removal of manifests that lost their job.
	cleanupTimeout = 30 * time.Second
)

// Jobs is what publishing needs of the store.
type Jobs interface {
	GetJob(ctx context.Context, id string) (pipeline.Job, error)
	CompleteJob(ctx context.Context, id string, run int, outputs []media.Output) (bool, error)
}

// Publisher publishes jobs.
type Publisher struct {
	jobs Jobs
	out  objectstore.Objects
	log  *slog.Logger
}

// New returns a Publisher that writes to the output bucket.
func New(jobs Jobs, out objectstore.Objects, log *slog.Logger) *Publisher {
	return &Publisher{jobs: jobs, out: out, log: log}
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
	outputs, manifests, err := assemble(job)
	if err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if err := p.write(ctx, manifests); err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	completed, err := p.jobs.CompleteJob(ctx, job.ID, job.Run, outputs)
	if err != nil {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if !completed {
		return p.withdraw(ctx, jobID, manifests)
	}
	p.log.InfoContext(ctx, "job published", "job_id", jobID, "run", job.Run,
		"outputs", len(outputs), "manifests", len(manifests))
	return nil
}

// done reports whether a job runs and all tasks of its run are done.
func done(job pipeline.Job) bool {
	return job.State == pipeline.JobRunning && !slices.ContainsFunc(job.Tasks, func(t pipeline.Task) bool {
		return t.Run == job.Run && t.State != pipeline.TaskDone
	})
}

// assemble computes what a job publishes. An error says that its tasks don't
// make what was planned, which somebody has to look at.
func assemble(job pipeline.Job) ([]media.Output, []media.Manifest, error) {
	if job.Plan == nil || len(job.Plan.Outputs) == 0 {
		return nil, nil, errors.New("its tasks are done and it has no plan")
	}
	tasks := slices.Clone(job.Tasks)
	slices.SortFunc(tasks, func(a, b pipeline.Task) int { return cmp.Compare(indexOf(a), indexOf(b)) })
	parts := map[string][]media.Part{}
	for _, task := range tasks {
		if part, ok := partOf(task); ok && task.Run == job.Run {
			parts[task.Output] = append(parts[task.Output], part)
		}
	}
	var outputs []media.Output
	var manifests []media.Manifest
	for _, plan := range job.Plan.Outputs {
		if len(parts[plan.Name]) == 0 {
			return nil, nil, fmt.Errorf("its tasks are done and made nothing of output %s", plan.Name)
		}
		output, files := media.Assemble(plan, parts[plan.Name], media.OutputPrefix(job.Project, job.ID, plan.Name))
		outputs = append(outputs, output)
		manifests = append(manifests, files...)
	}
	return outputs, manifests, nil
}

// indexOf returns a task's index in its job: its place in playback order.
func indexOf(task pipeline.Task) int {
	_, index, _ := media.SplitTaskID(task.ID)
	return index
}

// partOf returns what a done task made; false for one that makes nothing.
func partOf(task pipeline.Task) (media.Part, bool) {
	if task.Result == nil {
		return media.Part{}, false
	}
	for _, attempt := range task.Attempts {
		if attempt.Outcome == pipeline.OutcomeDone {
			return media.Part{Dir: media.AttemptDir(indexOf(task), attempt.Number), Result: *task.Result}, true
		}
	}
	return media.Part{}, false
}

// write writes manifests: those that are named by others first, so that a
// player never follows a name to nothing.
func (p *Publisher) write(ctx context.Context, manifests []media.Manifest) error {
	var named, entries []media.Manifest
	for i, m := range manifests {
		if i+1 == len(manifests) || path.Dir(manifests[i+1].Key) != path.Dir(m.Key) {
			entries = append(entries, m) // the last of each output opens it
		} else {
			named = append(named, m)
		}
	}
	for _, batch := range [][]media.Manifest{named, entries} {
		writes, ctx := errgroup.WithContext(ctx)
		writes.SetLimit(writesAtOnce)
		for _, m := range batch {
			writes.Go(func() error {
				return p.out.Put(ctx, m.Key, bytes.NewReader(m.Body), objectstore.PutOptions{ContentType: m.ContentType})
			})
		}
		if err := writes.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// withdraw removes the manifests of a job that ended while they were written:
// the duty to clean it up may have been done before they were there.
func (p *Publisher) withdraw(ctx context.Context, jobID string, manifests []media.Manifest) error {
	job, err := p.jobs.GetJob(ctx, jobID)
	if err != nil && pipeline.ReasonOf(err) != pipeline.ReasonJobNotFound {
		return fmt.Errorf("publish job %s: %w", jobID, err)
	}
	if err == nil && job.State != pipeline.JobFailed && job.State != pipeline.JobCanceled {
		return nil // the next run's, or completed by another replica
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for _, m := range manifests {
		if err := p.out.Delete(ctx, m.Key); err != nil {
			return fmt.Errorf("withdraw job %s: %w", jobID, err)
		}
	}
	return nil
}
