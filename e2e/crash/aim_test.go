package crash_test

import (
	"context"
	"slices"

	"github.com/tcoder-dev/tcoder/internal/faultproxy"
)

// aimed is a fault that is about to happen: whom it hits, and the tasks that
// are done with nobody having heard of it, because answers are held back.
type aimed struct {
	worker  *process // of a worker's fault
	replica *replica // of a control plane's
	victims []sight

	links []*faultproxy.Proxy // ways to a worker on which answers are held
	redis *faultproxy.Proxy   // way to a control plane on which Redis's are
	taken []any
}

func (a *aimed) releaseLinks() {
	for _, link := range a.links {
		link.Release()
	}
}

func (a *aimed) releaseRedis() {
	if a.redis != nil {
		a.redis.Release()
	}
}

func (a *aimed) release() {
	a.releaseLinks()
	a.releaseRedis()
}

func (a *aimed) end(s *strikes) {
	a.release()
	for _, victim := range a.taken {
		s.give(victim)
	}
}

// aim finds a fault's moment: a task that the store has as done, and that its
// worker, or with a late fault the control plane, hasn't heard of. Where none
// comes in time the fault happens nevertheless. r is the replica that is hit,
// nil of a worker's fault and of Redis's.
func (s *strikes) aim(ctx context.Context, f fault, r *replica) *aimed {
	a := &aimed{replica: r}
	if f.late {
		s.aimLate(ctx, f, a)
	}
	if len(a.victims) == 0 {
		s.aimEarly(ctx, f, a)
	}

	return a
}

// aimLate holds back what Redis answers a control plane until that has ended
// the last task of a job.
func (s *strikes) aimLate(ctx context.Context, f fault, a *aimed) {
	r := a.replica
	if r == nil {
		if r = s.idle(f.replica); r == nil {
			return
		}
		a.taken = append(a.taken, r)
	}
	a.redis = r.redis
	hold := func() { r.redis.Hold(faultproxy.Down) }
	for range aimTries {
		done, p := s.ends(ctx, s.cell.attached(r), hold, unpublished)
		if len(done) > 0 && (!f.kind.ofWorker() || s.take(p, false)) {
			if f.kind.ofWorker() {
				a.worker = p
				a.links = p.links
				a.taken = append(a.taken, p)
			}
			a.victims = done

			return
		}
		r.redis.Release()
	}
}

// idle takes a replica that has workers and that nobody strikes, the given one
// if it may; nil if there is none.
func (s *strikes) idle(first int) *replica {
	for i := range replicaCount {
		r := s.cell.replicas[(first+i)%replicaCount]
		if slices.ContainsFunc(s.cell.workers, s.cell.attached(r)) && s.take(r, false) {
			return r
		}
	}

	return nil
}

// aimEarly holds back what a worker is told until one of its tasks is done.
func (s *strikes) aimEarly(ctx context.Context, f fault, a *aimed) {
	p := s.cell.workers[f.worker]
	if f.kind.ofWorker() {
		s.take(p, true)
		a.worker = p
		a.taken = append(a.taken, p)
	} else if p = s.free(a); p == nil {
		return
	}
	a.links = p.links
	hold := func() {
		for _, link := range p.links {
			link.Hold(faultproxy.Down)
		}
	}
	a.victims, _ = s.ends(ctx, func(other *process) bool { return other == p }, hold, unheard)
}

// free takes a worker that nobody else strikes, of the replica that is hit.
func (s *strikes) free(a *aimed) *process {
	for _, p := range s.cell.workers {
		if (a.replica == nil || s.cell.attached(a.replica)(p)) && s.take(p, false) {
			a.taken = append(a.taken, p)

			return p
		}
	}

	return nil
}

// ends waits until some workers hold a task whose end brings the state that is
// wanted, holds answers back, and waits for that end. What was leased when
// answers were held, and is done now, nobody has heard of.
func (s *strikes) ends(ctx context.Context, of func(*process) bool, hold func(), want state) (done []sight, worker *process) {
	if eventually(ctx, aimWithin, aimEvery, func() bool { return s.promising(ctx, of, want) }) != nil {
		return nil, nil
	}
	hold()
	before, err := s.cell.leases(ctx, of)
	if err != nil {
		return nil, nil
	}
	_ = eventually(ctx, holdWithin, aimEvery, func() bool {
		now, err := s.cell.leases(ctx, of)
		if err != nil {
			return true
		}
		for ref, p := range before {
			if now[ref] != nil {
				continue
			}
			delete(before, ref)
			found := s.cell.done(ctx, ref)
			if slices.ContainsFunc(found, func(v sight) bool { return v.state == want }) {
				done, worker = found, p

				return true
			}
		}

		return len(before) == 0
	})

	return done, worker
}

// promising tells whether some workers hold a task whose end would bring a state.
func (s *strikes) promising(ctx context.Context, of func(*process) bool, want state) bool {
	held, err := s.cell.leases(ctx, of)
	if err != nil || want == unheard {
		return len(held) > 0
	}
	for ref := range held {
		if s.cell.last(ctx, ref) {
			return true
		}
	}

	return false
}
