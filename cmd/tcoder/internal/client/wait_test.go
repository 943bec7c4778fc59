package client

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// A job that waits says why, in words for a person.
func TestWaitText(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	delayed := func(after time.Duration, message string) *tcoderv1.Task {
		return &tcoderv1.Task{
			State: tcoderv1.TaskState_TASK_STATE_DELAYED, NotBefore: timestamppb.New(now.Add(after)),
			Attempts: []*tcoderv1.Attempt{{Failure: &tcoderv1.Failure{
				Reason: tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, Message: message,
			}}},
		}
	}
	for want, job := range map[string]*tcoderv1.Job{
		"waiting: its upload isn't complete":         {Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_UPLOAD}},
		"waiting: it is next, and no worker is free": {Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_QUEUE}},
		"waiting: 12 tasks before it":                {Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_QUEUE, Position: 12}},
		"waiting: 1 task before it":                  {Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_QUEUE, Position: 1}},
		"waiting: no worker is attached":             {Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_NO_WORKER}},
		"waiting: no worker is attached, 3 tasks before it": {Waiting: &tcoderv1.Waiting{
			Reason: tcoderv1.WaitReason_WAIT_REASON_NO_WORKER, Position: 3,
		}},
		"waiting: the project already runs 4 of 4 tasks": {Waiting: &tcoderv1.Waiting{
			Reason: tcoderv1.WaitReason_WAIT_REASON_PROJECT_LIMIT, RunningLimit: 4,
		}},
		"waiting: the project already runs as many tasks as it may, 2 tasks before it": {Waiting: &tcoderv1.Waiting{
			Reason: tcoderv1.WaitReason_WAIT_REASON_PROJECT_LIMIT, Position: 2,
		}},
		"retrying in 8 s: ENCODE_FAILED: first": {
			Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_BACKOFF},
			Tasks: []*tcoderv1.Task{
				delayed(time.Minute, "later"), delayed(7100*time.Millisecond, "first"), {State: tcoderv1.TaskState_TASK_STATE_DONE},
			},
		},
		"retrying in 0 s: ENCODE_FAILED: due": {
			Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_BACKOFF},
			Tasks:   []*tcoderv1.Task{delayed(-time.Minute, "due")},
		},
		"retrying soon": {Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_BACKOFF}},
	} {
		label, text := waitText(job, now)
		require.Equal(t, want, label+" "+text)
	}
	for number := range tcoderv1.WaitReason_name {
		if number != 0 {
			_, text := waitText(&tcoderv1.Job{Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason(number)}}, now)
			require.NotContains(t, text, "doesn't know")
		}
	}
}
