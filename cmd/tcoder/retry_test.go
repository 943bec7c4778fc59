package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

func refusal(t *testing.T, code connect.Code, detail *tcoderv1.ErrorDetail) error {
	t.Helper()
	err := connect.NewError(code, errors.New("because"))
	d, detailErr := connect.NewErrorDetail(detail)
	require.NoError(t, detailErr)
	err.AddDetail(d)

	return err
}

func queueFull(t *testing.T) error {
	t.Helper()

	return refusal(t, connect.CodeResourceExhausted, &tcoderv1.ErrorDetail{
		Reason: tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL, Remedy: "wait", RetryAfter: durationpb.New(4500 * time.Millisecond),
	})
}

// failedJobs is a server with failed jobs on two pages, of which one has lost
// its source and, from the given one on, all meet a full queue.
func failedJobs(t *testing.T, fullFrom string) (server *scripted, retried *[]string) {
	t.Helper()
	server, retried = newScripted(t), new([]string)
	server.list = func(r *tcoderv1.ListJobsRequest) *tcoderv1.ListJobsResponse {
		require.Equal(t, []tcoderv1.JobState{tcoderv1.JobState_JOB_STATE_FAILED}, r.GetStates())
		require.Equal(t, []tcoderv1.ErrorReason{tcoderv1.ErrorReason_ERROR_REASON_QUARANTINED}, r.GetReasons())
		if r.GetPageToken() == "" {
			return &tcoderv1.ListJobsResponse{Jobs: []*tcoderv1.Job{{Id: "d", Run: 1}, {Id: "c", Run: 2}}, NextPageToken: "next"}
		}

		return &tcoderv1.ListJobsResponse{Jobs: []*tcoderv1.Job{{Id: "b", Run: 1}, {Id: "a", Run: 1}}}
	}
	server.retry = func(r *tcoderv1.RetryJobRequest) (*tcoderv1.Job, error) {
		switch id := r.GetJobId(); {
		case fullFrom != "" && id <= fullFrom:
			return nil, queueFull(t)
		case id == "c":
			return nil, refusal(t, connect.CodeFailedPrecondition, &tcoderv1.ErrorDetail{Reason: tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING})
		default:
			*retried = append(*retried, id)

			return &tcoderv1.Job{Id: id, Run: r.GetRun() + 1, State: tcoderv1.JobState_JOB_STATE_PENDING}, nil
		}
	}

	return server, retried
}

// All failed jobs of a reason are started again, over all pages; one that
// can't be is told and passed over, and makes the exit code 1.
func TestRetryFailed(t *testing.T) {
	t.Parallel()
	server, retried := failedJobs(t, "")
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "jobs", "retry", "--failed", "--reason", "quarantined"))
	require.Equal(t, []string{"d", "b", "a"}, *retried)
	require.Equal(t, []string{
		"d PENDING, run 2", "c INPUT_MISSING: because", "b PENDING, run 2", "a PENDING, run 2",
	}, strings.Split(strings.TrimSpace(s.stdout.String()), "\n"))
	require.Contains(t, s.stderr.String(), "1 of 4 jobs can't start again")
}

// With --json there is a document per job and nothing else; --limit bounds
// how many are started again.
func TestRetryFailedAsJSON(t *testing.T) {
	t.Parallel()
	server, retried := failedJobs(t, "")
	s := newSession(map[string]string{"TCODER_SERVER": server.url, "TCODER_JSON": "true"})
	require.Equal(t, cli.ExitFailed, s.run(t, "jobs", "retry", "--failed", "--reason", "QUARANTINED", "--limit", "3"))
	require.Equal(t, []string{"d", "b"}, *retried)
	lines := strings.Split(strings.TrimSpace(s.stdout.String()), "\n")
	require.Len(t, lines, 3)
	require.JSONEq(t, `{"job": {"id": "d", "run": 2, "state": "JOB_STATE_PENDING"}}`, lines[0])
	require.JSONEq(t, `{"jobId": "c", "error": {"code": "failed_precondition", "reason": "INPUT_MISSING", "message": "because"}}`, lines[1])
}

// A full queue ends the command with when to try again: the rest is left.
func TestRetryFailedIntoAFullQueue(t *testing.T) {
	t.Parallel()
	server, retried := failedJobs(t, "b")
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "jobs", "retry", "--failed", "--reason", "QUARANTINED"))
	require.Equal(t, []string{"d"}, *retried)
	require.Contains(t, s.stderr.String(), "error: QUEUE_FULL: because\n  wait\n  it can succeed in 5 s\n")
}

// A refused upload of a full queue says when to try again, for people and for
// programs.
func TestTranscodeIntoAFullQueue(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	server.refuse = queueFull(t)
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "transcode", writeFile(t, "clip.mp4", []byte("film")), "--json"))
	require.Contains(t, s.stderr.String(), "it can succeed in 5 s")
	_, reason := parseFailure(t, s)
	require.Equal(t, "QUEUE_FULL", reason)
	require.Contains(t, s.stdout.String(), `"retryAfterSeconds": 4.5`)
}

// A retry is of one job or of all that failed, not of both or none.
func TestRetryUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"j", "--failed"}, {"j", "--reason", "QUARANTINED"}, {"--failed", "--reason", "SAD"}, {"j", "--limit", "2"},
	} {
		s := newSession(nil)
		require.Equal(t, cli.ExitUsage, s.run(t, append([]string{"jobs", "retry"}, args...)...), args)
	}
}
