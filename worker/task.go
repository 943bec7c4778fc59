package worker

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// leaseKey is a lease as a map's key.
type leaseKey struct {
	taskID  string
	attempt uint32
}

func keyOf(lease *tcoderv1.LeaseRef) leaseKey {
	return leaseKey{taskID: lease.GetTaskId(), attempt: lease.GetAttempt()}
}

// heldTask is an attempt that this worker answers for: it runs, or its report
// waits to be acknowledged. It belongs to the loop, but for progress.
type heldTask struct {
	lease    *tcoderv1.LeaseRef
	source   *grant
	cancel   context.CancelCauseFunc
	started  time.Time
	progress atomic.Pointer[tcoderv1.TaskProgress]
	segments segmentReports
	// report is how it ended; nil while it runs.
	report *tcoderv1.TaskReport
	// resendAt is when to send the report again if nothing has acknowledged it.
	resendAt time.Time
	// refused says that the report is what the worker says in place of words that are refused.
	refused bool
	log     *slog.Logger
}

// endsWithin guesses from the progress so far whether the task ends soon. One
// that has told none is given the chance.
func (t *heldTask) endsWithin(window time.Duration, now time.Time) bool {
	done := t.progress.Load().GetFraction()
	if done <= 0 {
		return true
	}

	remaining := float64(now.Sub(t.started)) * (1 - done) / done

	return remaining <= float64(window)
}

// taskTable is what a worker holds.
type taskTable map[leaseKey]*heldTask

// inOrder returns the tasks in a fixed order, for messages and logs that can be
// compared.
func (t taskTable) inOrder() []*heldTask {
	return slices.SortedFunc(maps.Values(t), func(a, b *heldTask) int {
		return cmp.Or(
			strings.Compare(a.lease.GetTaskId(), b.lease.GetTaskId()),
			cmp.Compare(a.lease.GetAttempt(), b.lease.GetAttempt()))
	})
}

// of returns the attempts of a task that are held.
func (t taskTable) of(taskID string) []*heldTask {
	return slices.DeleteFunc(t.inOrder(), func(held *heldTask) bool {
		return held.lease.GetTaskId() != taskID
	})
}
