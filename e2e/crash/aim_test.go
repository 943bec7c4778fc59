package crash_test

import (
	"context"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/faultproxy"
)

// aimed is a fault that is about to happen: whom it hits, and the tasks that
// are done with nobody having heard of it, because answers are held back.
type aimed struct {
	worker  *process // of a worker's fault
	replica *replica // of a control plane's
	victims []sight
	kills   int64 // of Redis, when these were seen

	links hold // on the ways to a worker
	redis hold // on the way from a control plane to Redis
}

// hold is answers that are held back on some ways.
type hold struct {
	ways []*faultproxy.Proxy
	give func() // gives back whom the aim took for that
}

func (h *hold) begin() {
	for _, way := range h.ways {
		way.Hold(faultproxy.Down)
	}
}

// release lets answers pass, and others strike whom they come from.
func (h *hold) release() {
	for _, way := range h.ways {
		way.Release()
	}
	h.ways = nil
	if h.give != nil {
		h.give()
		h.give = nil
	}
}

func (a *aimed) release() {
	a.links.release()
	a.redis.release()
}

// end makes good what is left of a fault, and gives back whom it hit.
func (a *aimed) end(s *strikes) {
	a.release()
	if a.worker != nil {
		s.give(a.worker)
	}
	if a.replica != nil {
		s.give(a.replica)
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
// the last task of a job; of another task, if none comes.
func (s *strikes) aimLate(ctx context.Context, f fault, a *aimed) {
	r := a.replica
	if r == nil {
		if r = s.takeReplica(ctx, f.replica); r == nil {
			return
		}
		a.redis.give = func() { s.give(r) }
	}
	for began, last := time.Now(), false; ctx.Err() == nil && !last; {
		last = time.Since(began) > aimFor
		a.kills = s.kills.Load()
		a.redis.ways = []*faultproxy.Proxy{r.redis}
		done, p := s.ends(ctx, func(e *ending) bool { return s.cell.attached(r)(e.worker) && s.cell.last(ctx, e.ref) }, a.redis.begin)
		hit := slices.ContainsFunc(done, func(v sight) bool { return v.state == unpublished }) || last && len(done) > 0
		if hit && (!f.kind.ofWorker() || s.take(p)) {
			a.victims = done
			if f.kind.ofWorker() {
				a.worker = p
				a.links.ways = p.links // a half-open connection ends with its release
			}

			return
		}
		r.redis.Release()
	}
	a.redis.release()
}

// aimEarly holds back what a worker is told until one of its tasks is done.
func (s *strikes) aimEarly(ctx context.Context, f fault, a *aimed) {
	p := s.takeWorker(ctx, f.worker, func(p *process) bool { return a.replica == nil || s.cell.attached(a.replica)(p) })
	if p == nil {
		return
	}
	if f.kind.ofWorker() {
		a.worker = p
	} else {
		a.links.give = func() { s.give(p) }
	}
	a.links.ways = p.links
	a.kills = s.kills.Load()
	a.victims, _ = s.ends(ctx, func(e *ending) bool { return e.worker == p }, a.links.begin)
}

// ends waits for an attempt that is about to end and will do, holds answers
// back, lets it end, and waits until the store has it as done.
func (s *strikes) ends(ctx context.Context, will func(*ending) bool, hold func()) (done []sight, worker *process) {
	e := s.cell.gate.next(ctx, aimWithin, will)
	if e == nil {
		return nil, nil
	}
	hold()
	close(e.pass)
	_ = eventually(ctx, holdWithin, aimEvery, func() bool {
		done = s.cell.done(ctx, e.ref)

		return len(done) > 0
	})

	return done, e.worker
}
