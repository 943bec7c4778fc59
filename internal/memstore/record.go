package memstore

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	maxEvents   = 1000 // that are kept of a job
	maxAttempts = 16   // that ended and are kept of a task
)

// job is a job with its tasks and events.
type job struct {
	rec      pipeline.Job // without Tasks, Wait and WaitPosition
	tasks    []*task      // of all runs
	first    int          // index of the run's first task
	events   []pipeline.Event
	upload   string        // id of the upload that is its source, if any
	maxLease time.Duration // the longest that was given
	left     bool          // an attempt that wasn't accepted may have left objects
	done     float64       // weight of the run's tasks that is done, in part or whole
	stream   stream
}

// task is a task with what its job's reader doesn't see.
type task struct {
	job   *job
	index int
	rec   pipeline.Task // the attempt that runs is the last of Attempts

	attempt int // the newest, from 1
	charged int // failures
	losses  int // leases that ran out
	spoilt  int // attempts in a row that were the machine's fault
	waits   int // for how many tasks
	follow  []int
	last    bool // it was the last of its run to be done

	worker   string    // while LEASED
	deadline time.Time // while LEASED
	told     float64   // fraction of the running attempt
	kept     time.Time // when that was stored
}

type upload struct {
	rec  pipeline.Upload
	jobs int // that have it as their source
}

type worker struct {
	rec     pipeline.Worker // without Held
	answers []answer        // to the newest two claims that gave it tasks, newest first
}

// answer is what a claim gave.
type answer struct {
	request string
	leases  []pipeline.LeaseRef
}

func compareTasks(a, b *task) int {
	return cmp.Or(strings.Compare(a.job.rec.ID, b.job.rec.ID), cmp.Compare(a.index, b.index))
}

// run returns the tasks of the current run.
func (j *job) run() []*task { return j.tasks[j.first:] }

// open counts the tasks of the run that aren't done.
func (j *job) open() int {
	n := 0

	for _, t := range j.run() {
		if t.rec.State != pipeline.TaskDone {
			n++
		}
	}

	return n
}

// weight is that of all tasks of the run.
func (j *job) weight() float64 {
	sum := 0.0
	for _, t := range j.run() {
		sum += max(0, t.rec.Weight)
	}

	return sum
}

// view is the job as a reader gets it, without tasks.
func (j *job) view() pipeline.Job {
	v := j.rec
	if weight := j.weight(); weight > 0 {
		v.Progress.Share = 100 * max(0, j.done) / weight
	}

	if v.State.Terminal() {
		v.Progress.ETA = 0
	}

	return v
}

func (j *job) move(by pipeline.JobTransition) bool {
	to, ok := j.rec.State.Next(by)
	j.rec.State = to

	return ok
}

func (t *task) move(by pipeline.TaskTransition) bool {
	to, ok := t.rec.State.Next(by)
	t.rec.State = to

	return ok
}

func (t *task) entry() entry {
	return entry{priority: t.job.rec.Priority, queued: t.job.rec.Times.Queued, task: t}
}

func (t *task) ref() pipeline.LeaseRef {
	return pipeline.LeaseRef{TaskID: t.rec.ID, Attempt: t.attempt}
}

// newest is the attempt that runs, or ran last.
func (t *task) newest() *pipeline.Attempt { return &t.rec.Attempts[len(t.rec.Attempts)-1] }

// heldBy reports whether the task is leased to a worker under a token.
func (t *task) heldBy(workerID string, attempt int) bool {
	return t.rec.State == pipeline.TaskLeased && t.worker == workerID && t.attempt == attempt
}

// endedAs reports whether a worker's attempt ended that way before.
func (t *task) endedAs(workerID string, attempt int, outcome pipeline.Outcome) bool {
	return slices.ContainsFunc(t.rec.Attempts, func(a pipeline.Attempt) bool {
		return a.Number == attempt && a.WorkerID == workerID && a.Outcome == outcome
	})
}

func (t *task) view() pipeline.Task {
	v := t.rec
	v.Fraction = t.told
	v.Attempts = slices.Clone(v.Attempts)

	return v
}

// lease is the lease of a task that runs.
func (t *task) lease() pipeline.Lease {
	j := t.job.view()
	j.Outputs = nil

	return pipeline.Lease{Ref: t.ref(), Task: t.view(), Job: j, Expires: t.deadline}
}

// task finds a task by its id, nil if there is none.
func (s *Store) task(id string) *task {
	dash := strings.LastIndexByte(id, '-')
	if dash < 0 {
		return nil
	}

	j := s.jobs[id[:dash]]
	index, err := strconv.Atoi(id[dash+1:])

	if j == nil || err != nil || index < 0 || index >= len(j.tasks) {
		return nil
	}

	return j.tasks[index]
}

// sorted returns tasks of a set in the order of their ids.
func sorted(set map[*task]struct{}, fits func(*task) bool) []*task {
	var list []*task

	for t := range set {
		if fits(t) {
			list = append(list, t)
		}
	}

	slices.SortFunc(list, compareTasks)

	return list
}
