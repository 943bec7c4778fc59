package memstore

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// AttachWorker implements [pipeline.PoolStore].
func (s *Store) AttachWorker(
	_ context.Context, w pipeline.Worker, lease time.Duration,
) (int64, []pipeline.Lease, error) {
	defer s.begin()()

	known := s.workers[w.ID]
	if known != nil && known.rec.MachineID != w.MachineID {
		return 0, nil, refuse(pipeline.ReasonPermissionDenied, "The worker's id is of one on another machine.")
	}

	held := w.Held
	w.Held = nil
	s.session++
	w.Session, w.Attached, w.FirstSeen, w.LastSeen = s.session, true, s.now, s.now

	if known == nil {
		known = &worker{}
		s.workers[w.ID] = known
	} else {
		w.FirstSeen = known.rec.FirstSeen
		w.Draining = w.Draining || known.rec.Draining
	}

	known.rec = w

	if m := s.machines[w.MachineID]; m != nil {
		s.moveMachine(m, pipeline.MachineCreated) // it may be here before the provider's answer to the create
		s.moveMachine(m, pipeline.MachineAttach)
	}

	for _, ref := range held {
		s.absolve(w.ID, ref)
	}

	kept := []*task{}

	for _, t := range s.held(w.ID) {
		if slices.Contains(held, t.ref()) {
			// What the worker says next of it is to be taken in, though it attaches for every word.
			t.deadline = s.now.Add(lease - (freshWithin(lease) + time.Millisecond - 1).Truncate(time.Millisecond))
			kept = append(kept, t)
		} else {
			s.giveBack(t, pipeline.TaskRelease, pipeline.OutcomeReleased, &pipeline.Failure{
				Reason: pipeline.ReasonWorkerLost, Message: "The worker doesn't hold the task that it was given.",
			})
		}
	}

	leases := make([]pipeline.Lease, 0, len(kept))
	for _, t := range kept {
		leases = append(leases, t.lease())
	}

	return w.Session, leases, nil
}

// absolve takes it back that a task took a worker down: that lost an attempt of
// it and is here. Its machine was at fault, or the way to it, which a task
// survives more often.
func (s *Store) absolve(workerID string, ref pipeline.LeaseRef) {
	t := s.task(ref.TaskID)
	if t == nil || t.job.rec.State.Terminal() || t.losses == 0 || t.spoilt+1 >= maxMachineFaults {
		return
	}

	for i, a := range t.rec.Attempts {
		if a.Number == ref.Attempt && a.WorkerID == workerID && a.Outcome == pipeline.OutcomeLost {
			t.rec.Attempts = slices.Clone(t.rec.Attempts)
			t.rec.Attempts[i].Outcome = pipeline.OutcomeReleased
			t.rec.Attempts[i].Failure = &pipeline.Failure{
				Reason: pipeline.ReasonWorkerLost, Message: "The worker was silent until its lease ran out, and came back.",
			}
			t.losses--
			t.spoilt++
		}
	}
}

// held are the tasks that a worker holds, by id.
func (s *Store) held(workerID string) []*task {
	return sorted(s.leased, func(t *task) bool { return t.worker == workerID })
}

// seen reports whether a worker was heard from lately.
func (s *Store) seen(w *worker) bool { return !w.rec.LastSeen.Before(s.now.Add(-seenWithin)) }

// DetachWorker implements [pipeline.PoolStore].
func (s *Store) DetachWorker(_ context.Context, id string, session int64, gone bool) error {
	defer s.begin()()

	w := s.workers[id]

	switch {
	case w == nil, w.rec.Session != session:
	case gone && len(s.held(id)) == 0:
		delete(s.workers, id)
	default:
		w.rec.Attached = false
	}

	return nil
}

// DrainWorker implements [pipeline.PoolStore].
func (s *Store) DrainWorker(_ context.Context, id string) (pipeline.Worker, error) {
	defer s.begin()()

	w := s.workers[id]
	if w == nil {
		return pipeline.Worker{}, refuse(pipeline.ReasonWorkerNotFound, "There is no such worker.")
	}

	if !w.rec.Draining {
		w.rec.Draining = true
		s.wake(pipeline.WakeWorker)
	}

	return s.viewWorker(w), nil
}

// LeaveWorker implements [pipeline.PoolStore].
func (s *Store) LeaveWorker(_ context.Context, id string, session int64, minWarm int) (bool, error) {
	defer s.begin()()

	w := s.workers[id]
	if w == nil {
		return true, nil
	}

	if w.rec.Session != session || len(s.held(id)) > 0 || !w.rec.Draining && minWarm > 0 && s.taking() <= minWarm {
		return false, nil
	}

	w.rec.Draining = true

	return true, nil
}

// taking counts the workers of machines that take tasks.
func (s *Store) taking() int {
	n := 0

	for _, w := range s.workers {
		if s.seen(w) && w.rec.MachineID != "" && !w.rec.Draining {
			n++
		}
	}

	return n
}

// ListWorkers implements [pipeline.PoolStore].
func (s *Store) ListWorkers(context.Context) ([]pipeline.Worker, error) {
	defer s.begin()()

	return s.listWorkers(), nil
}

func (s *Store) listWorkers() []pipeline.Worker {
	workers := []pipeline.Worker{}

	for _, w := range s.workers {
		if s.seen(w) {
			workers = append(workers, s.viewWorker(w))
		}
	}

	slices.SortFunc(workers, func(a, b pipeline.Worker) int { return strings.Compare(a.ID, b.ID) })

	return workers
}

// viewWorker is a worker with what it holds.
func (s *Store) viewWorker(w *worker) pipeline.Worker {
	v := w.rec
	for _, t := range s.held(v.ID) {
		v.Held = append(v.Held, t.ref())
	}

	return v
}
