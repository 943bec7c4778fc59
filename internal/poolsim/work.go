package poolsim

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// publishTakes is from the last task's end to the playlists.
const publishTakes = 100 * time.Millisecond

// job is one that came.
type job struct {
	Job

	submitted time.Time
	begun     time.Time // its first task after the probe
	lost      int       // attempts that ended without a result
}

// worker is one on a machine that runs.
type worker struct {
	machine  string
	id       string
	session  int64
	attached bool
	left     bool // it exits, and its machine stops
	draining bool
	served   int // the turn in which it was given a task last
	idleFrom time.Time
	held     map[string]*running // by task
}

// running is a task that a worker holds.
type running struct {
	ref     pipeline.LeaseRef
	job     *job
	jobID   string
	index   int // 0 is the probe
	started time.Time
	takes   time.Duration
}

// submit brings a job.
func (s *simulation) submit(ctx context.Context, id string, j Job) {
	s.jobs[id] = &job{Job: j, submitted: s.now}
	_, err := s.store.CreateJob(ctx, pipeline.Job{ID: id, Project: project}, pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	s.fail("submit", err)
}

// waiting counts the tasks that are ready.
func (s *simulation) waiting(ctx context.Context) int {
	stats, err := s.store.PoolStats(ctx)
	s.fail("count", err)
	return int(stats.ReadyTasks)
}

// attached are the ids of the workers that are there.
func (s *simulation) attached() []string {
	var ids []string
	for _, w := range s.inOrder() {
		if w.attached {
			ids = append(ids, w.id)
		}
	}
	return ids
}

// inOrder are the workers in the order of their machines' names.
func (s *simulation) inOrder() []*worker {
	if s.order == nil {
		s.order = slices.SortedFunc(maps.Values(s.workers), func(a, b *worker) int { return cmp.Compare(a.machine, b.machine) })
	}
	return s.order
}

// sync starts workers where machines have come to run, and ends those of
// machines that run no more.
func (s *simulation) sync(ctx context.Context) {
	if !s.cloud.changed() {
		return
	}
	s.order = nil
	state := map[string]machine.State{}
	for _, i := range s.cloud.Instances() {
		state[i.ID] = i.State
		if i.State == machine.Running && s.workers[i.ID] == nil {
			s.boot(ctx, i.ID)
		}
	}
	s.tally.machines = state
	for _, w := range s.inOrder() {
		if state[w.machine] == machine.Running {
			continue
		}
		delete(s.workers, w.machine)
		s.order = nil
		switch {
		case !w.attached || w.left:
		case state[w.machine] == machine.Stopping: // it was told, and hands back what it holds
			for _, r := range w.inOrder() {
				_, err := s.store.ReleaseTask(ctx, w.id, r.ref)
				s.fail("release", err)
				r.job.lost++
			}
			s.fail("detach", s.store.DetachWorker(ctx, w.id, w.session, true))
		default:
			for _, r := range w.held {
				r.job.lost++
			}
			s.fail("detach", s.store.DetachWorker(ctx, w.id, w.session, false))
		}
	}
}

// boot starts the worker of a machine.
func (s *simulation) boot(ctx context.Context, machineID string) {
	w := &worker{machine: machineID, held: map[string]*running{}}
	s.workers[machineID] = w
	s.order = nil
	s.at(s.now.Add(s.cfg.Cloud.Attach), func() {
		if s.workers[machineID] != w {
			return
		}
		w.id, w.attached, w.idleFrom = s.newID("w"), true, s.now
		var err error
		w.session, _, err = s.store.AttachWorker(ctx, pipeline.Worker{ID: w.id, MachineID: machineID, Slots: s.cfg.Policy.Slots, CPUs: cores}, lease)
		s.fail("attach", err)
		s.hungry = true
		s.rest(ctx, w)
		s.beat(ctx, w)
	})
}

// rest lets a worker ask to leave once it has been idle for long enough.
func (s *simulation) rest(ctx context.Context, w *worker) {
	idle := s.cfg.Policy.Settings.Idle
	if idle <= 0 || len(w.held) > 0 {
		return
	}
	from := w.idleFrom
	s.at(from.Add(idle), func() {
		if s.workers[w.machine] == w && len(w.held) == 0 && w.idleFrom.Equal(from) && !w.left {
			s.leave(ctx, w)
		}
	})
}

// leave asks whether a worker may exit.
func (s *simulation) leave(ctx context.Context, w *worker) {
	granted, err := s.store.LeaveWorker(ctx, w.id, w.session, s.cfg.Policy.Settings.MinWarm)
	s.fail("leave", err)
	if !granted {
		w.idleFrom = s.now
		s.rest(ctx, w)
		return
	}
	w.left = true
	s.tally.tail += min(s.now.Sub(w.idleFrom), s.cfg.Policy.Settings.Idle)
	s.fail("detach", s.store.DetachWorker(ctx, w.id, w.session, true))
	s.at(s.now.Add(s.cfg.Cloud.Stop), func() {
		if s.workers[w.machine] == w {
			s.cloud.end(w.machine)
		}
	})
}

// look finds the workers that were told to drain, or have lost a task.
func (s *simulation) look(ctx context.Context) {
	list, err := s.store.ListWorkers(ctx)
	s.fail("list workers", err)
	draining := map[string]bool{}
	for _, w := range list {
		draining[w.ID] = w.Draining
	}
	for _, w := range s.inOrder() {
		if w.attached && !w.left && draining[w.id] {
			w.draining = true
			if len(w.held) == 0 {
				s.leave(ctx, w)
			}
		}
	}
}

// beat renews the leases of a worker, and tells its progress.
func (s *simulation) beat(ctx context.Context, w *worker) {
	s.at(s.now.Add(heartbeat), func() {
		if s.workers[w.machine] != w || w.left {
			return
		}
		s.beat(ctx, w)
		if len(w.held) == 0 {
			return
		}
		var renewals []pipeline.Renewal
		for _, r := range w.inOrder() {
			renewals = append(renewals, pipeline.Renewal{Ref: r.ref, Fraction: min(1, float64(s.now.Sub(r.started))/float64(r.takes))})
		}
		renewed, err := s.store.RenewLeases(ctx, w.id, lease, renewals)
		s.fail("renew", err)
		for _, ref := range renewed.Lost {
			delete(w.held, ref.TaskID)
			s.freed(ctx, w)
		}
	})
}

// inOrder are the tasks that a worker holds.
func (w *worker) inOrder() []*running {
	return slices.SortedFunc(maps.Values(w.held), func(a, b *running) int { return cmp.Compare(a.ref.TaskID, b.ref.TaskID) })
}

// dispatch gives ready tasks to free slots, as services/pool does: to the
// worker with the most free slots, and among equals to the one that was given a
// task last.
func (s *simulation) dispatch(ctx context.Context) {
	for s.hungry && s.failure == nil {
		var best *worker
		for _, w := range s.inOrder() {
			free := s.free(w)
			if free > 0 && (best == nil || free > s.free(best) || free == s.free(best) && w.served > best.served) {
				best = w
			}
		}
		if best == nil {
			return
		}
		s.turn++
		got, err := s.store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: strconv.Itoa(s.turn), WorkerID: best.id, Session: best.session, Max: 1, Lease: lease,
		})
		s.fail("claim", err)
		for _, l := range got.Leases {
			best.served = s.turn
			s.begin(ctx, best, l)
		}
		if got.Refused {
			best.draining = true
		}
		s.hungry = got.More || got.Refused
	}
}

func (s *simulation) free(w *worker) int {
	if !w.attached || w.left || w.draining {
		return 0
	}
	return s.cfg.Policy.Slots - len(w.held)
}

// begin runs a task.
func (s *simulation) begin(ctx context.Context, w *worker, l pipeline.Lease) {
	j := s.jobs[l.Job.ID]
	r := &running{ref: l.Ref, job: j, jobID: l.Job.ID, index: indexOf(l.Task.ID, l.Job.ID), started: s.now, takes: j.Probe}
	if r.index > 0 {
		r.takes = j.Tasks[r.index-1].Takes
		if j.begun.IsZero() {
			j.begun = s.now
			s.tally.waits = append(s.tally.waits, s.now.Sub(j.submitted))
		}
	}
	w.held[l.Ref.TaskID] = r
	s.at(s.now.Add(max(time.Millisecond, r.takes)), func() {
		if s.workers[w.machine] == w && w.held[l.Ref.TaskID] == r {
			s.finish(ctx, w, r)
		}
	})
}

// indexOf is the index of a task in its job.
func indexOf(taskID, jobID string) int {
	index, _ := strconv.Atoi(taskID[len(jobID)+1:]) // the store's ids are such
	return index
}

// finish ends a task with its result.
func (s *simulation) finish(ctx context.Context, w *worker, r *running) {
	delete(w.held, r.ref.TaskID)
	result := pipeline.TaskResult{Ref: r.ref, WorkerID: w.id}
	if r.index == 0 {
		for _, t := range r.job.Tasks {
			kind := pipeline.KindEncode
			if t.Audio {
				kind = pipeline.KindAudio
			}
			result.Tasks = append(result.Tasks, pipeline.NewTask{Kind: kind, Weight: t.Weight})
		}
	}
	verdict, last, err := s.store.FinishTask(ctx, result)
	s.fail("finish", err)
	if verdict == pipeline.VerdictAccepted && last {
		s.at(s.now.Add(publishTakes), func() { s.publish(ctx, r) })
	}
	s.freed(ctx, w)
}

// publish ends a job.
func (s *simulation) publish(ctx context.Context, r *running) {
	done, err := s.store.CompleteJob(ctx, r.jobID, 1, nil)
	s.fail("publish", err)
	if !done {
		return
	}
	s.open--
	s.doneAt = s.now
	s.tally.lost += r.job.lost
	s.tally.took = append(s.tally.took, s.now.Sub(r.job.submitted))
	delete(s.jobs, r.jobID)
}

// freed looks what a worker with a free slot does next.
func (s *simulation) freed(ctx context.Context, w *worker) {
	s.hungry = true
	if len(w.held) > 0 {
		return
	}
	w.idleFrom = s.now
	if w.draining {
		s.leave(ctx, w)
		return
	}
	s.rest(ctx, w)
}
