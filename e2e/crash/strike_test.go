package crash_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tcoder-dev/tcoder/internal/faultproxy"
)

const (
	// These bound the wait for whom a fault hits, and for its moment.
	takeWithin  = 5 * time.Second
	aimFor      = 3 * time.Second
	aimWithin   = 2 * time.Second
	holdWithin  = 500 * time.Millisecond // less than a lease
	redisWithin = 10 * time.Second
	aimEvery    = 20 * time.Millisecond
	// candidates are how many tasks of each state a fault is held against.
	candidates = 4
)

// range of how long things are gone. A pause of a worker outlasts the lease.
const (
	shortest = 50 * time.Millisecond
	downFor  = 400 * time.Millisecond
	halfFor  = lease + 500*time.Millisecond
)

// strikes does to a cell what a plan says.
type strikes struct {
	cell *cell
	plan *plan
	t    *testing.T

	redis sync.Mutex   // one kills Redis at a time
	kills atomic.Int64 // of Redis: what was seen before one may not be so after it

	mu   sync.Mutex
	busy map[any]bool // who is struck: *process, *replica
}

func newStrikes(t *testing.T, c *cell, p *plan) *strikes {
	t.Helper()

	return &strikes{cell: c, plan: p, t: t, busy: map[any]bool{}}
}

// run strikes, some faults at a time, until the plan or ctx ends.
func (s *strikes) run(ctx context.Context, lanes int) {
	var group sync.WaitGroup
	for range lanes {
		group.Go(func() {
			for ctx.Err() == nil {
				f, more := s.plan.next()
				if !more {
					return
				}
				s.strike(ctx, f)
			}
		})
	}
	group.Wait()
}

// take reserves a victim, if nobody else has.
func (s *strikes) take(victim any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[victim] {
		return false
	}
	s.busy[victim] = true

	return true
}

// takeWorker reserves a worker that will do, the first from one on that is
// free; nil if none becomes free.
func (s *strikes) takeWorker(ctx context.Context, from int, will func(*process) bool) *process {
	return takeOne(ctx, s, s.cell.workers, from, will)
}

// takeReplica reserves a replica that has workers.
func (s *strikes) takeReplica(ctx context.Context, from int) *replica {
	return takeOne(ctx, s, s.cell.replicas, from, func(r *replica) bool {
		return slices.ContainsFunc(s.cell.workers, s.cell.attached(r))
	})
}

func takeOne[V comparable](ctx context.Context, s *strikes, of []V, from int, will func(V) bool) (taken V) {
	_ = eventually(ctx, takeWithin, aimEvery, func() bool {
		for i := range of {
			if v := of[(from+i)%len(of)]; will(v) && s.take(v) {
				taken = v

				return true
			}
		}

		return false
	})

	return taken
}

func (s *strikes) give(victim any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, victim)
}

// strike waits for a fault's moment, does it, counts what it hit, and makes
// good again.
func (s *strikes) strike(ctx context.Context, f fault) {
	switch {
	case f.kind == killRedis:
		s.strikeRedis(ctx, f)
	case f.kind.ofWorker():
		s.strikeWorker(ctx, f)
	default:
		s.strikeReplica(ctx, f)
	}
}

func (s *strikes) strikeRedis(ctx context.Context, f fault) {
	s.redis.Lock()
	defer s.redis.Unlock()
	a := s.aim(ctx, f, nil)
	defer a.end(s)
	s.fire(ctx, f, a, func() {
		s.cell.redis.Kill()
		s.kills.Add(1)
	})
	a.release()
	wait(ctx, f.lasting(0, downFor))
	s.cell.redis.Restart() //nolint:contextcheck // it has to be there again, also when the time is over
}

// blow is how a kind of fault is done and made good again.
type blow struct {
	strike, heal func()
}

func (s *strikes) strikeWorker(ctx context.Context, f fault) {
	a := s.aim(ctx, f, nil)
	defer a.end(s)
	p := a.worker
	if p == nil { // all are being struck
		return
	}
	links := func(do func(*faultproxy.Proxy)) func() {
		return func() {
			for _, link := range p.links {
				do(link)
			}
		}
	}
	cut := links((*faultproxy.Proxy).Cut)
	blows := map[kind]blow{
		killWorker: {p.Kill, func() {
			a.release()
			wait(ctx, f.lasting(0, downFor))
			s.cell.work(s.t, p)
		}},
		pauseWorker: {func() { p.Signal(syscall.SIGSTOP) }, func() {
			a.release()
			wait(ctx, lease+f.lasting(shortest, lease))
			p.Signal(syscall.SIGCONT)
		}},
		cutWorker: {cut, func() {
			a.release()
			wait(ctx, shortest)
		}},
		halfOpenWorker: {links(func(link *faultproxy.Proxy) { link.Hold(faultproxy.Both) }), func() {
			a.redis.release()
			wait(ctx, f.lasting(shortest, halfFor))
			if f.broken {
				cut()
			}
			a.release()
		}},
	}
	s.fire(ctx, f, a, blows[f.kind].strike)
	blows[f.kind].heal()
}

func (s *strikes) strikeReplica(ctx context.Context, f fault) {
	r := s.takeReplica(ctx, f.replica)
	if r == nil { // none has workers
		return
	}
	a := s.aim(ctx, f, r)
	defer a.end(s)
	blows := map[kind]blow{
		killControl: {r.Kill, func() {
			a.release()
			wait(ctx, f.lasting(0, downFor))
			s.cell.serve(s.t, r) //nolint:contextcheck // as Redis
		}},
		pauseControl: {func() { r.Signal(syscall.SIGSTOP) }, func() {
			a.release()
			wait(ctx, f.lasting(shortest, halfFor))
			r.Signal(syscall.SIGCONT)
		}},
		cutRedis: {r.redis.Cut, func() {
			a.release()
			wait(ctx, shortest)
		}},
		halfOpenRedis: {func() { r.redis.Hold(faultproxy.Both) }, func() {
			a.links.release()
			wait(ctx, f.lasting(shortest, halfFor))
			if f.broken {
				r.redis.Cut()
			}
			r.redis.Release()
		}},
	}
	s.fire(ctx, f, a, blows[f.kind].strike)
	blows[f.kind].heal()
}

// fire strikes, and counts the tasks that were in a state both right before
// and right after it. A killed Redis can't be asked afterwards, and what was
// seen before it was killed counts for nobody else.
func (s *strikes) fire(ctx context.Context, f fault, a *aimed, act func()) {
	var all []sight
	_ = eventually(ctx, redisWithin, aimEvery, func() bool {
		var err error
		all, err = s.cell.look(ctx)

		return err == nil
	})
	victims := s.within(f, a, all)
	kills := s.kills.Load()
	if kills == a.kills {
		victims = append(victims, a.victims...)
	}
	victims, err := s.cell.lookAgain(ctx, victims)
	if s.kills.Load() != kills {
		victims = nil
	}
	act()
	if err == nil && f.kind != killRedis {
		victims, err = s.cell.lookAgain(ctx, victims)
		if s.kills.Load() != kills {
			victims = nil
		}
	}
	if err != nil {
		victims = nil // Redis or the test ended
	}
	s.plan.hit(f.kind, victims)
}

// within are tasks within reach of a fault: those that wait are in everybody's,
// those that are leased in that of who holds them, or holds the stream of who does.
func (s *strikes) within(f fault, a *aimed, all []sight) []sight {
	counts := map[state]int{}

	return slices.DeleteFunc(all, func(v sight) bool {
		switch v.state {
		case ready, delayed, blocked:
		case leased:
			p, found := s.cell.workerOf(v.worker)
			if !found {
				return true
			}
			if f.kind.ofWorker() && p != a.worker || a.replica != nil && !s.cell.attached(a.replica)(p) {
				return true
			}
		case unheard, unpublished:
			return true // only a fault that aimed at them knows
		}
		counts[v.state]++

		return counts[v.state] > candidates
	})
}

// wait lets a fault last.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
