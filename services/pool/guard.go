package pool

import (
	"sync"
	"time"
)

// guard bounds an operation on a stream. Each deadline that is set is a message
// to the goroutine of the HTTP/2 connection; a guard costs that only when it
// goes off.
type guard struct {
	timer *time.Timer

	mu      sync.Mutex
	expires time.Time // zero while nothing is bounded
}

// newGuard returns a guard that gives up by setting a deadline that has passed.
func newGuard(setDeadline func(time.Time) error) *guard {
	g := &guard{}
	g.timer = time.AfterFunc(time.Hour, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		// It may have been stopped, or be for the next operation, since it went off.
		if !g.expires.IsZero() && !time.Now().Before(g.expires) {
			_ = setDeadline(time.Unix(1, 0)) // it fails if the connection has ended
		}
	})
	g.timer.Stop()
	return g
}

func (g *guard) start(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expires = time.Now().Add(d)
	g.timer.Reset(d)
}

// stop lets no deadline be set any more when it returns: the handler of a
// stream that has ended must not set one, it would panic.
func (g *guard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expires = time.Time{}
	g.timer.Stop()
}
