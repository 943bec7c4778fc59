package crash_test

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tcoder-dev/tcoder/internal/faultproxy"
)

const (
	// aimTries and aimWithin bound the wait for a fault's moment.
	aimTries   = 6
	aimWithin  = time.Second
	holdWithin = 600 * time.Millisecond
	aimEvery   = 8 * time.Millisecond
	// candidates are how many tasks of each state a fault is held against.
	candidates = 4
)

// range of how long things are gone. A pause outlasts the lease.
const (
	shortest = 50 * time.Millisecond
	downFor  = 800 * time.Millisecond
	halfFor  = lease + time.Second
)

// strikes does to a cell what a plan says.
type strikes struct {
	cell *cell
	plan *plan
	t    *testing.T

	// redis is held for reading while a fault needs Redis to be there.
	redis sync.RWMutex

	mu    sync.Mutex
	freed *sync.Cond
	busy  map[any]bool // who is struck: *process, *replica
}

func newStrikes(t *testing.T, c *cell, p *plan) *strikes {
	t.Helper()
	s := &strikes{cell: c, plan: p, t: t, busy: map[any]bool{}}
	s.freed = sync.NewCond(&s.mu)

	return s
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

// take reserves a victim, and waits for that if it may.
func (s *strikes) take(victim any, wait bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy[victim] {
		if !wait {
			return false
		}
		s.freed.Wait()
	}
	s.busy[victim] = true

	return true
}

func (s *strikes) give(victim any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, victim)
	s.freed.Broadcast()
}

// strike waits for a fault's moment, does it, counts what it hit, and makes
// good again.
func (s *strikes) strike(ctx context.Context, f fault) {
	switch {
	case f.kind == killRedis:
		s.redis.Lock()
		defer s.redis.Unlock()
		a := s.aim(ctx, f, nil)
		defer a.end(s)
		s.fire(ctx, f, a, s.cell.redis.Kill)
		wait(ctx, f.lasting(0, downFor))
		s.cell.redis.Restart() //nolint:contextcheck // it has to be there again, also when the time is over
	case f.kind.ofWorker():
		s.strikeWorker(ctx, f)
	default:
		s.strikeReplica(ctx, f)
	}
}

// blow is how a kind of fault is done and made good again.
type blow struct {
	strike, heal func()
}

func (s *strikes) strikeWorker(ctx context.Context, f fault) {
	s.redis.RLock()
	a := s.aim(ctx, f, nil)
	defer a.end(s)
	p := a.worker
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
			a.releaseRedis()
			wait(ctx, f.lasting(shortest, halfFor))
			if f.broken {
				cut()
			}
			a.release()
		}},
	}
	s.fire(ctx, f, a, blows[f.kind].strike)
	s.redis.RUnlock()
	blows[f.kind].heal()
}

func (s *strikes) strikeReplica(ctx context.Context, f fault) {
	r := s.idle(f.replica)
	if r == nil {
		r = s.cell.replicas[f.replica]
		s.take(r, true)
	}
	defer s.give(r)
	s.redis.RLock()
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
			a.releaseLinks()
			wait(ctx, f.lasting(shortest, halfFor))
			if f.broken {
				r.redis.Cut()
			}
			r.redis.Release()
		}},
	}
	s.fire(ctx, f, a, blows[f.kind].strike)
	s.redis.RUnlock()
	blows[f.kind].heal()
}

// fire strikes, and counts the tasks that were in a state both right before
// and right after it. A killed Redis can't be asked afterwards.
func (s *strikes) fire(ctx context.Context, f fault, a *aimed, act func()) {
	victims := a.victims
	all, err := s.cell.look(ctx)
	if err == nil {
		s.plan.seen(all)
		victims = append(victims, s.within(f, a, all)...)
		victims, err = s.cell.lookAgain(ctx, victims)
	}
	act()
	if err == nil && f.kind != killRedis {
		victims, err = s.cell.lookAgain(ctx, victims)
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
