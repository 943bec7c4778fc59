package crash_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// gate is where the fake workers ask before an attempt ends well, so that a
// fault finds the moment in which one does.
type gate struct {
	*httptest.Server

	workerOf func(id string) (*process, bool)

	mu      sync.Mutex
	waiting []*waiter
}

// waiter is a fault that waits for the end of an attempt.
type waiter struct {
	will  func(*ending) bool
	found chan *ending
}

// ending is an attempt that ends when pass is closed.
type ending struct {
	worker *process
	ref    pipeline.LeaseRef
	pass   chan struct{}
}

func newGate(t *testing.T, workerOf func(id string) (*process, bool)) *gate {
	t.Helper()
	g := &gate{workerOf: workerOf}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{worker}/{task}/{attempt}", g.ask)
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)

	return g
}

// ask answers at once, unless a fault waits for that attempt.
func (g *gate) ask(_ http.ResponseWriter, r *http.Request) {
	p, found := g.workerOf(r.PathValue("worker"))
	attempt, err := strconv.Atoi(r.PathValue("attempt"))
	if !found || err != nil {
		return
	}
	e := &ending{worker: p, ref: pipeline.LeaseRef{TaskID: r.PathValue("task"), Attempt: attempt}, pass: make(chan struct{})}
	g.mu.Lock()
	waiting := slices.Clone(g.waiting)
	g.mu.Unlock()
	for _, w := range waiting {
		if !w.will(e) {
			continue
		}
		select {
		case w.found <- e:
			select {
			case <-e.pass:
			case <-r.Context().Done():
			}

			return
		default: // it has found another one
		}
	}
}

// next waits for the end of an attempt that will do, and stops it; nil if none
// comes in time.
func (g *gate) next(ctx context.Context, within time.Duration, will func(*ending) bool) *ending {
	w := &waiter{will: will, found: make(chan *ending)}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting = slices.DeleteFunc(g.waiting, func(other *waiter) bool { return other == w })
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case e := <-w.found:
		return e
	case <-timer.C:
	case <-ctx.Done():
	}

	return nil
}
