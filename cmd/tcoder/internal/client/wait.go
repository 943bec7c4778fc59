package client

import (
	"fmt"
	"math"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// waitText says why a job that waits does: what it does meanwhile, and the rest
// of the sentence.
func waitText(job *tcoderv1.Job, now time.Time) (label, text string) {
	const waiting = "waiting:"
	w := job.GetWaiting()
	switch w.GetReason() {
	case tcoderv1.WaitReason_WAIT_REASON_UPLOAD:
		return waiting, "its upload isn't complete"
	case tcoderv1.WaitReason_WAIT_REASON_QUEUE:
		if w.GetPosition() == 0 {
			return waiting, "it is next, and no worker is free"
		}

		return waiting, before(w)
	case tcoderv1.WaitReason_WAIT_REASON_NO_WORKER:
		return waiting, "no worker is attached" + behind(w)
	case tcoderv1.WaitReason_WAIT_REASON_PROJECT_LIMIT:
		text = "the project already runs as many tasks as it may"
		if limit := w.GetRunningLimit(); limit > 0 {
			text = fmt.Sprintf("the project already runs %d of %d tasks", limit, limit)
		}

		return waiting, text + behind(w)
	case tcoderv1.WaitReason_WAIT_REASON_BACKOFF:
		return "retrying", backoffText(job, now)
	default:
		return waiting, "for a reason that this version doesn't know"
	}
}

func before(w *tcoderv1.Waiting) string { return count(int(w.GetPosition()), "task") + " before it" }

// behind ends a sentence with what is before a job; with nothing if it is next.
func behind(w *tcoderv1.Waiting) string {
	if w.GetPosition() == 0 {
		return ""
	}

	return ", " + before(w)
}

// backoffText says when the first of a job's delayed tasks is tried again, and
// why it has to be.
func backoffText(job *tcoderv1.Job, now time.Time) string {
	var next *tcoderv1.Task
	for _, task := range job.GetTasks() {
		if task.GetState() != tcoderv1.TaskState_TASK_STATE_DELAYED {
			continue
		}
		if next == nil || task.GetNotBefore().AsTime().Before(next.GetNotBefore().AsTime()) {
			next = task
		}
	}
	if next == nil {
		return "soon"
	}
	left := max(0, next.GetNotBefore().AsTime().Sub(now))
	text := fmt.Sprintf("in %.0f s", math.Ceil(left.Seconds()))
	if attempts := next.GetAttempts(); len(attempts) > 0 && attempts[len(attempts)-1].GetFailure() != nil {
		text += ": " + failureText(attempts[len(attempts)-1].GetFailure())
	}

	return text
}
