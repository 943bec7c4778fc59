package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
)

const (
	specBytes = 300
	// projects share the queue, so that fairness has something to do.
	projects = 8
	// Limits that are checked on every call, and never reached.
	waitingLimit = 1 << 21
	runningLimit = 1 << 20
	benchLease   = time.Minute
	keyTTL       = 24 * time.Hour
)

// noteBytes is what a job's label is long, so that all of it is 300 bytes. Ids
// are of one length, and so are projects: it is counted once, since the time
// of callers is measured.
var noteBytes = sync.OnceValue(func() int { //nolint:gochecknoglobals // a number that doesn't change
	id, project := ulid.Make().String(), projectName(0)
	raw, err := json.Marshal(struct {
		Spec   media.Spec        `json:"spec"`
		Source pipeline.Source   `json:"source"`
		Labels map[string]string `json:"labels"`
	}{benchSpec(), benchSource(id, project), map[string]string{"note": ""}})
	if err != nil {
		return 0
	}

	return max(0, specBytes-len(raw))
})

func benchSpec() media.Spec { return media.Spec{Preset: media.DefaultPreset} }

func benchSource(id, project string) pipeline.Source {
	return pipeline.Source{ObjectKey: "in/" + project + "/" + id + "/source", SizeBytes: 1 << 30, ETag: id, Filename: "clip.mp4"}
}

// benchJob is a job whose spec, source and labels are 300 bytes as JSON, with
// the one task that it has.
func benchJob(id, project string) (pipeline.Job, pipeline.NewTask) {
	j := pipeline.Job{
		ID: id, Project: project, Spec: benchSpec(), Source: benchSource(id, project), Labels: map[string]string{},
	}
	// Unlike one letter repeated, these don't shrink when Redis rewrites its file.
	j.Labels["note"] = strings.Repeat(id, 1+specBytes/len(id))[:noteBytes()]

	return j, pipeline.NewTask{Kind: pipeline.KindEncode, Output: "mp4", Weight: 1}
}

func projectName(n int) string { return "project-" + strconv.Itoa(n%projects) }

// caller is a user and a worker at once: it submits a job, takes one from the
// queue, which may be another's, and works on it to its end.
type caller struct {
	worker  string
	session int64
	project string
	// apart says that its jobs are completed by a call of their own, as those are whose
	// outputs somebody has to put together: a stream's playlists. A file is all in its task's result.
	apart bool
}

// attachCallers makes callers and attaches the worker of each.
func attachCallers(ctx context.Context, store pipeline.Store, n int) ([]caller, error) {
	callers := make([]caller, n)
	err := atOnce(n, func(i int) error {
		c := caller{worker: ulid.Make().String(), project: projectName(i)}
		var err error
		c.session, _, err = store.AttachWorker(ctx, pipeline.Worker{ID: c.worker, Slots: 1, CPUs: 2, Version: "bench"}, benchLease)
		callers[i] = c

		return err
	})

	return callers, err
}

// atOnce calls f n times at once and returns what failed first.
func atOnce(n int, f func(i int) error) error {
	var group sync.WaitGroup
	var first atomic.Pointer[error]
	for i := range n {
		group.Go(func() {
			if err := f(i); err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	group.Wait()
	if err := first.Load(); err != nil {
		return *err
	}

	return nil
}

// submit creates a job in the caller's project.
func (c caller) submit(ctx context.Context, store pipeline.Store, idempotent bool) (string, error) {
	id := ulid.Make().String()
	job, task := benchJob(id, c.project)
	a := pipeline.Admission{WaitingLimit: waitingLimit}
	if idempotent {
		a.IdempotencyKey, a.Fingerprint, a.KeyTTL = id, "fingerprint", keyTTL
	}
	if _, err := store.CreateJob(ctx, job, task, a); err != nil {
		return "", fmt.Errorf("create: %w", err)
	}

	return id, nil
}

// claim takes one task from the queue.
func (c caller) claim(ctx context.Context, store pipeline.Store) (pipeline.Lease, error) {
	for ctx.Err() == nil {
		claimed, err := store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: ulid.Make().String(), WorkerID: c.worker, Session: c.session, Max: 1, Lease: benchLease, RunningLimit: runningLimit,
		})
		switch {
		case err != nil:
			return pipeline.Lease{}, fmt.Errorf("claim: %w", err)
		case claimed.Refused:
			return pipeline.Lease{}, errors.New("claim: the worker is refused")
		case len(claimed.Leases) == 1:
			return claimed.Leases[0], nil
		}
	}

	return pipeline.Lease{}, context.Cause(ctx)
}

// benchOutputs is the file that a job makes.
func benchOutputs(job pipeline.Job) []media.Output {
	const size = 1 << 26
	key := media.OutputPrefix(job.Project, job.ID, "mp4") + media.AttemptDir(0, 1) + "video.mp4"

	return []media.Output{{
		Name: "mp4", Kind: media.KindMP4, Entry: "video.mp4", Duration: time.Minute, SizeBytes: size,
		Objects:    []media.OutputObject{{Name: "video.mp4", Key: key, SizeBytes: size, ContentType: "video/mp4"}},
		Renditions: []media.RenditionResult{{Name: "720p", Width: 1280, Height: 720}},
	}}
}

// work takes a leased task, the only one of its job, to the job's end.
func (c caller) work(ctx context.Context, store pipeline.Store, l pipeline.Lease) error {
	for _, fraction := range []float64{0.3, 0.6} {
		renewed, err := store.RenewLeases(ctx, c.worker, benchLease, []pipeline.Renewal{{
			Ref: l.Ref, Fraction: fraction, Progress: pipeline.Progress{MediaTime: 4 * time.Second, Speed: 2.5, FPS: 75},
		}})
		if err != nil {
			return fmt.Errorf("renew: %w", err)
		}
		if len(renewed.Lost) > 0 {
			return errors.New("renew: the lease is lost")
		}
	}
	result := pipeline.TaskResult{Ref: l.Ref, WorkerID: c.worker, Result: &media.EncodeResult{}}
	if !c.apart {
		result.Outputs = benchOutputs(l.Job)
	}
	v, last, err := store.FinishTask(ctx, result)
	if err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	if v != pipeline.VerdictAccepted || !last {
		return fmt.Errorf("finish: %s, last %t", v, last)
	}
	if !c.apart {
		return nil
	}
	done, err := store.CompleteJob(ctx, l.Job.ID, 1, benchOutputs(l.Job))
	if err != nil {
		return fmt.Errorf("complete: %w", err)
	}
	if !done {
		return errors.New("complete: the job isn't running")
	}

	return nil
}

// runCycles lets callers go round as long as more says so, and returns the
// ids of the jobs that they completed. None may be lost, double or unfinished.
func runCycles(ctx context.Context, store pipeline.Store, callers []caller, more func() bool) ([]string, error) {
	// Every job that was submitted is claimed by somebody, unless one is lost.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	created := make([][]string, len(callers))
	completed := make([][]string, len(callers))
	if err := atOnce(len(callers), func(i int) error {
		for more() {
			id, err := callers[i].submit(ctx, store, true)
			if err != nil {
				return err
			}
			created[i] = append(created[i], id)
			lease, err := callers[i].claim(ctx, store)
			if err != nil {
				return err
			}
			if err := callers[i].work(ctx, store, lease); err != nil {
				return err
			}
			completed[i] = append(completed[i], lease.Job.ID)
		}

		return nil
	}); err != nil {
		return nil, err
	}
	open := map[string]bool{}
	var ids []string
	for _, list := range created {
		for _, id := range list {
			open[id] = true
		}
	}
	for _, list := range completed {
		for _, id := range list {
			if !open[id] {
				return nil, fmt.Errorf("invalid: job %s was completed twice, or never submitted", id)
			}
			delete(open, id)
			ids = append(ids, id)
		}
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("invalid: %d jobs are lost", len(open))
	}

	return ids, nil
}

// checkCompleted fails unless every job is COMPLETED in Redis and nothing is
// left of its task. Counting them all would take longer than the round: none
// may be in another state, and a sample is read.
func checkCompleted(ctx context.Context, store pipeline.Store, ids []string) error {
	for n := range projects {
		jobs, err := store.ListJobs(ctx, pipeline.JobFilter{Project: projectName(n), Limit: 1, States: []pipeline.JobState{
			pipeline.JobUploading, pipeline.JobPending, pipeline.JobRunning, pipeline.JobFailed, pipeline.JobCanceled,
		}})
		if err != nil {
			return fmt.Errorf("check: %w", err)
		}
		if len(jobs) > 0 {
			return fmt.Errorf("invalid: job %s is %s at the end", jobs[0].ID, jobs[0].State)
		}
	}
	stats, err := store.PoolStats(ctx)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if stats.ReadyTasks+stats.LeasedTasks+stats.DelayedTasks > 0 {
		return fmt.Errorf("invalid: tasks are left over: %+v", stats)
	}
	const sample = 200
	for i := 0; i < len(ids); i += 1 + len(ids)/sample {
		job, err := store.GetJob(ctx, ids[i])
		if err != nil {
			return fmt.Errorf("check: %w", err)
		}
		if job.State != pipeline.JobCompleted || len(job.Outputs) != 1 {
			return fmt.Errorf("invalid: job %s is %s with %d outputs at the end", job.ID, job.State, len(job.Outputs))
		}
	}

	return nil
}

// openStore opens the store as `tcoder serve` does, and listens to its
// wake-ups as a control plane would.
func openStore(ctx context.Context, url string) (_ *redisstore.Store, closeStore func() error, err error) {
	store, err := redisstore.New(redisstore.Config{URL: url})
	if err != nil {
		return nil, nil, err
	}
	wakes, err := store.Wakes(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range wakes {
			continue // who listens is what costs
		}
	}()

	return store, func() error {
		err := store.Close()
		<-drained

		return err
	}, nil
}
