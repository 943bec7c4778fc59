package worker

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// withScratch gives every attempt a folder of its own, and removes it
// afterwards, whatever happened.
func withScratch(places *room, next Executor) Executor {
	return func(ctx context.Context, a Attempt) (report *tcoderv1.TaskReport, err error) {
		base, release := places.take(scratchNeed(a.Assignment))
		defer release()

		a.dir, err = os.MkdirTemp(base, "attempt-")
		if err != nil {
			return nil, machineFault("The worker can't write to its scratch folder.", err)
		}

		defer func() {
			if err := os.RemoveAll(a.dir); err != nil {
				a.log.Error("an attempt's scratch folder can't be removed", "error", err)
			}
		}()

		return next(ctx, a)
	}
}

// withTimeLimit ends the work when the assignment's time is up.
func withTimeLimit(next Executor) Executor {
	return func(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error) {
		if limit := a.Assignment.GetTimeLimit().AsDuration(); limit > 0 {
			limited, cancel := context.WithTimeoutCause(ctx, limit, errTimeLimit)
			defer cancel()

			ctx = limited
		}

		report, err := next(ctx, a)

		return report, ended(ctx, err)
	}
}

// withRecovery turns a panic into an error: one task's bug is not the others'.
func withRecovery(next Executor) Executor {
	return func(ctx context.Context, a Attempt) (report *tcoderv1.TaskReport, err error) {
		err = recovered(func() error {
			var err error

			report, err = next(ctx, a)

			return err
		})

		return report, err
	}
}

// recovered calls f and returns its panic, if it panics, as an error.
func recovered(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()

	return f()
}

// withLog tells the start and the end of every attempt.
func withLog(next Executor) Executor {
	return func(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error) {
		start := time.Now()

		a.log.Info("attempt starts", "kind", a.Assignment.GetKind().String(),
			"source_size_bytes", a.Assignment.GetSourceSizeBytes())

		report, err := next(ctx, a)
		log := a.log.With("seconds", time.Since(start).Seconds())

		switch {
		case err == nil:
			log.Info("attempt succeeded")
		case stoppedByUs(err):
			log.Info("attempt was stopped", "cause", err)
		default:
			fault := faultOf(err)
			log.Warn("attempt failed", "class", fault.Class.String(), "reason", fault.Reason.String(),
				"message", fault.Message, "detail", fault.Log)
		}

		return report, err
	}
}

// withReport makes every end a report of the attempt's lease; the error is
// always nil.
func withReport(next Executor) Executor {
	return func(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error) {
		lease := a.Assignment.GetLease()

		report, err := next(ctx, a)
		if err != nil {
			return faultReport(lease, faultOf(err)), nil
		}

		report.Lease = lease

		return report, nil
	}
}

// decorate builds what the worker runs out of the bare work.
func decorate(places *room, work Executor) Executor {
	return withReport(withLog(withRecovery(withTimeLimit(withScratch(places, work)))))
}
