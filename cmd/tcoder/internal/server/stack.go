package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// errEndedEarly is a part that returned though nobody stopped it.
var errEndedEarly = errors.New("ended by itself")

// stack runs parts that depend on each other: each on those started before it.
type stack struct {
	log   *slog.Logger
	parts []*part
	ended chan *part
}

type part struct {
	name string
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

func newStack(log *slog.Logger) *stack {
	return &stack{log: log, ended: make(chan *part, 16)} //nolint:mnd // more than there are parts
}

// start runs a part until stop. The values of ctx are passed on, its end isn't:
// parts end in their order.
func (s *stack) start(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &part{name: name, stop: cancel, done: make(chan struct{})}
	s.parts = append(s.parts, p)
	go func() {
		defer close(p.done)
		p.err = run(ctx)
		if ctx.Err() == nil {
			s.ended <- p
		}
	}()
}

// wait waits for a signal, the early end of a part, or the end of ctx.
func (s *stack) wait(ctx context.Context, signal <-chan struct{}) error {
	select {
	case <-signal:
		return nil
	case p := <-s.ended:
		<-p.done
		if p.err == nil {
			return fmt.Errorf("%s %w", p.name, errEndedEarly)
		}

		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends the parts in reverse order, each when those that need it are gone.
// When hard ends it waits for nobody any more, and returns its cause.
func (s *stack) stop(hard context.Context) error {
	var errs []error
	for _, p := range slices.Backward(s.parts) {
		s.log.DebugContext(hard, "stopping", "part", p.name)
		p.stop()
		select {
		case <-p.done:
			if p.err != nil && !errors.Is(p.err, context.Canceled) {
				errs = append(errs, fmt.Errorf("stop %s: %w", p.name, p.err))
			}
		case <-hard.Done():
			return errors.Join(append(errs, context.Cause(hard))...)
		}
	}

	return errors.Join(errs...)
}
