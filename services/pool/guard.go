package pool

import "time"

// guard bounds an operation on a stream. Each deadline that is set is a message
// to the goroutine of the HTTP/2 connection; a guard costs that only when it
// goes off.
type guard struct {
	timer *time.Timer
}

// newGuard returns a guard that gives up by setting a deadline that has passed.
func newGuard(setDeadline func(time.Time) error) *guard {
	g := &guard{timer: time.AfterFunc(time.Hour, func() {
		_ = setDeadline(time.Unix(1, 0)) // it fails if the stream has ended
	})}
	g.timer.Stop()
	return g
}

func (g *guard) start(d time.Duration) { g.timer.Reset(d) }

func (g *guard) stop() { g.timer.Stop() }
