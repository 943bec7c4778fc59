package crash_test

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// state is what a fault can find a task in: the store's states of tasks that
// have something to lose, and the two moments in which a task is done and not
// everybody knows.
type state string

const (
	ready   state = "READY"
	leased  state = "LEASED"
	delayed state = "DELAYED"
	blocked state = "BLOCKED"
	// unheard: it is DONE in the store, and its worker hasn't heard it.
	unheard state = "DONE, not heard"
	// unpublished: it is DONE as the last of its job, which isn't published.
	unpublished state = "DONE, not published"
)

func states() []state { return []state{ready, leased, delayed, blocked, unheard, unpublished} }

const looksAtOnce = 8

// sight is a task in a state.
type sight struct {
	state   state
	jobID   string
	taskID  string
	attempt int    // the newest, 0 if none
	worker  string // of that
}

// look reads the tasks of all live jobs.
func (c *cell) look(ctx context.Context) ([]sight, error) {
	jobs, err := c.store.ListJobs(ctx, pipeline.JobFilter{
		Project: pipeline.DefaultProject, States: []pipeline.JobState{pipeline.JobPending, pipeline.JobRunning}, Limit: 100,
	})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(jobs))
	for i, job := range jobs {
		ids[i] = job.ID
	}

	return c.lookAt(ctx, ids)
}

// lookAt reads the tasks of jobs.
func (c *cell) lookAt(ctx context.Context, ids []string) ([]sight, error) {
	found := make([][]sight, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(looksAtOnce)
	for i, id := range ids {
		group.Go(func() error {
			job, err := c.store.GetJob(ctx, id)
			found[i] = sights(job)

			return err
		})
	}

	if err := group.Wait(); err != nil {
		return nil, err
	}

	return slices.Concat(found...), nil
}

// sights are the tasks of a job's run, each in one state; one that is done is
// unheard, and unpublished besides when its job could be published.
func sights(job pipeline.Job) []sight {
	var all []sight
	open := false
	for _, task := range job.Tasks {
		if task.Run != job.Run {
			continue
		}
		s := sight{state: state(task.State), jobID: job.ID, taskID: task.ID}
		if n := len(task.Attempts); n > 0 {
			s.attempt, s.worker = task.Attempts[n-1].Number, task.Attempts[n-1].WorkerID
		}
		if task.State == pipeline.TaskDone {
			s.state = unheard
		} else {
			open = true
		}
		all = append(all, s)
	}
	if job.State == pipeline.JobRunning && !open {
		for _, s := range all {
			s.state = unpublished
			all = append(all, s)
		}
	}

	return all
}

// lookAgain keeps what is still as it was.
func (c *cell) lookAgain(ctx context.Context, before []sight) ([]sight, error) {
	var ids []string
	for _, s := range before {
		ids = append(ids, s.jobID)
	}
	slices.Sort(ids)
	now, err := c.lookAt(ctx, slices.Compact(ids))
	if err != nil {
		return nil, err
	}

	return slices.DeleteFunc(slices.Clone(before), func(s sight) bool { return !slices.Contains(now, s) }), nil
}

// done reads what became of a lease that is no more: unheard, and unpublished
// if its task was the last. Nothing if it wasn't the end that was accepted.
func (c *cell) done(ctx context.Context, ref pipeline.LeaseRef) []sight {
	jobID, _, ok := media.SplitTaskID(ref.TaskID)
	if !ok {
		return nil
	}
	all, err := c.lookAt(ctx, []string{jobID})
	if err != nil {
		return nil
	}

	return slices.DeleteFunc(all, func(s sight) bool {
		return s.taskID != ref.TaskID || s.attempt != ref.Attempt || s.state != unheard && s.state != unpublished
	})
}

// last tells whether a lease is that of the last task of its job.
func (c *cell) last(ctx context.Context, ref pipeline.LeaseRef) bool {
	jobID, index, ok := media.SplitTaskID(ref.TaskID)
	if !ok || index == 0 { // a probe never is
		return false
	}
	job, err := c.store.GetJob(ctx, jobID)
	if err != nil || job.Plan == nil {
		return false
	}

	return !slices.ContainsFunc(job.Tasks, func(t pipeline.Task) bool {
		return t.Run == job.Run && t.ID != ref.TaskID && t.State != pipeline.TaskDone
	})
}

func (s sight) String() string {
	return fmt.Sprintf("%s/%d %s %s", s.taskID, s.attempt, s.state, s.worker)
}
