package tcoder_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// A refusal keeps everything that the server says about it.
func TestRefusalIsTyped(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.getJob = func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		return nil, refuse(t, connect.CodeInvalidArgument, &tcoderv1.ErrorDetail{
			Reason:     tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID,
			Remedy:     "do it right",
			Fields:     []*tcoderv1.FieldViolation{{Field: "job_id", Description: "is too long"}},
			Metadata:   map[string]string{"limit": "64"},
			RetryAfter: durationpb.New(time.Second),
		})
	}

	_, err := client.GetJob(t.Context(), "x")

	var refusal *tcoder.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, connect.CodeInvalidArgument, refusal.Code)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, tcoder.ReasonOf(err))
	require.Equal(t, "REQUEST_INVALID", refusal.ReasonName())
	require.Equal(t, "because of REQUEST_INVALID", refusal.Message)
	require.Equal(t, "do it right", refusal.Remedy)
	require.Equal(t, "job_id", refusal.Fields[0].GetField())
	require.Equal(t, map[string]string{"limit": "64"}, refusal.Metadata)
	require.Equal(t, time.Second, refusal.RetryAfter)
	require.NotErrorIs(t, err, tcoder.ErrUnreachable)
}

// A server that isn't there is told apart from one that refuses.
func TestUnreachableServerIsRecognised(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	client, err := tcoder.New("http://"+listener.Addr().String(), tcoder.WithRetry(tcoder.RetryPolicy{
		FirstDelay: time.Millisecond, FirstPatience: 5 * time.Millisecond,
	}))
	require.NoError(t, err)

	_, err = client.GetJob(t.Context(), "x")

	require.ErrorIs(t, err, tcoder.ErrUnreachable)
	require.ErrorContains(t, err, "connection refused")
	for _, err := range client.Watch(t.Context(), "x") {
		require.ErrorIs(t, err, tcoder.ErrUnreachable)
	}
}

// Something else at the address is an error at once, not an absent server.
func TestForeignServerIsNotUnreachable(t *testing.T) {
	t.Parallel()
	foreign := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(foreign.Close)
	client, err := tcoder.New(foreign.URL)
	require.NoError(t, err)

	_, err = client.GetJob(t.Context(), "x")

	require.Error(t, err)
	require.NotErrorIs(t, err, tcoder.ErrUnreachable)
	var refusal *tcoder.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "UNIMPLEMENTED", refusal.ReasonName())
}

// A call that is safe to repeat outlives an outage.
func TestSafeCallsAreRepeated(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	var calls atomic.Int32
	s.getJob = func(r *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		if calls.Add(1) < 4 {
			return nil, unavailable(t)
		}

		return &tcoderv1.GetJobResponse{Job: &tcoderv1.Job{Id: r.GetJobId()}}, nil
	}

	job, err := client.GetJob(t.Context(), "x")

	require.NoError(t, err)
	require.Equal(t, "x", job.GetId())
	require.Equal(t, int32(4), calls.Load())
}

// An outage that outlasts the patience is reported with the server's reason.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	s, client := newServer(t, tcoder.WithRetry(tcoder.RetryPolicy{
		FirstDelay: time.Millisecond, FirstPatience: 5 * time.Millisecond, Patience: 5 * time.Millisecond,
	}))
	s.getJob = func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) { return nil, unavailable(t) }

	_, err := client.GetJob(t.Context(), "x")

	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE, tcoder.ReasonOf(err))
	require.NotErrorIs(t, err, tcoder.ErrUnreachable)
}

// A retry whose answer was lost is repeated with the run that it follows, so
// that it starts one run: the one that the caller names, or the job's.
func TestRetryJobIsRepeatedSafely(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	var runs []uint32
	s.getJob = func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		return &tcoderv1.GetJobResponse{Job: &tcoderv1.Job{Id: "x", Run: 3}}, nil
	}
	s.retryJob = func(r *tcoderv1.RetryJobRequest) (*tcoderv1.RetryJobResponse, error) {
		runs = append(runs, r.GetRun())
		if len(runs)%2 == 1 {
			return nil, unavailable(t)
		}

		return &tcoderv1.RetryJobResponse{Job: &tcoderv1.Job{Id: "x", Run: r.GetRun() + 1}}, nil
	}

	job, err := client.RetryJob(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, uint32(4), job.GetRun())
	job, err = client.RetryJob(t.Context(), "x", tcoder.AfterRun(2))
	require.NoError(t, err)
	require.Equal(t, uint32(3), job.GetRun())
	require.Equal(t, []uint32{3, 3, 2, 2}, runs)
}

// A full queue is told at once, with when to try again; it isn't waited for.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	var calls atomic.Int32
	s.createJob = func(*tcoderv1.CreateJobRequest) (*tcoderv1.CreateJobResponse, error) {
		calls.Add(1)

		return nil, refuse(t, connect.CodeResourceExhausted, &tcoderv1.ErrorDetail{
			Reason: tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL, RetryAfter: durationpb.New(7 * time.Second),
		})
	}

	_, err := client.CreateJob(t.Context(), "film", tcoder.JobOptions{})

	var refusal *tcoder.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL, refusal.Reason)
	require.Equal(t, 7*time.Second, refusal.RetryAfter)
	require.Equal(t, int32(1), calls.Load())
}

// A delete whose answer was lost is a success when the job is gone; a delete
// of an unknown job is not.
func TestDeleteJobAfterALostAnswer(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	gone := refuse(t, connect.CodeNotFound, &tcoderv1.ErrorDetail{Reason: tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND})
	var calls atomic.Int32
	s.deleteJob = func(*tcoderv1.DeleteJobRequest) (*tcoderv1.DeleteJobResponse, error) {
		if calls.Add(1) == 1 {
			return nil, unavailable(t)
		}

		return nil, gone
	}

	require.NoError(t, client.DeleteJob(t.Context(), "x"))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND, tcoder.ReasonOf(client.DeleteJob(t.Context(), "x")))
}

// The end of the caller's context ends a call that is being repeated.
func TestCanceledContextEndsRetries(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.getJob = func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		cancel()

		return nil, unavailable(t)
	}

	_, err := client.GetJob(ctx, "x")

	require.ErrorIs(t, err, context.Canceled)
}

// The key goes with every call, streams included.
func TestAPIKeyIsSent(t *testing.T) {
	t.Parallel()
	s, client := newServer(t, tcoder.WithAPIKey("secret"), tcoder.WithUserAgent("test/1"))
	var calls atomic.Int32
	s.onCall = func(h http.Header) {
		if h.Get("Authorization") == "Bearer secret" && h.Get("User-Agent") == "test/1" {
			calls.Add(1)
		}
	}
	s.getJob = func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		return &tcoderv1.GetJobResponse{}, nil
	}
	s.watchJob = func(_ context.Context, _ *tcoderv1.WatchJobRequest, stream *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
		return stream.Send(&tcoderv1.WatchJobResponse{Job: &tcoderv1.Job{State: tcoderv1.JobState_JOB_STATE_COMPLETED}})
	}

	_, err := client.GetJob(t.Context(), "x")
	require.NoError(t, err)
	_, err = client.Wait(t.Context(), "x")
	require.NoError(t, err)

	require.Equal(t, int32(2), calls.Load())
}

// ListJobs reads page after page, and only as many as are asked for.
func TestListJobsReadsPages(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	var tokens []string
	s.listJobs = func(r *tcoderv1.ListJobsRequest) (*tcoderv1.ListJobsResponse, error) {
		tokens = append(tokens, r.GetPageToken())
		next := map[string]string{"": "b", "b": "c", "c": ""}

		return &tcoderv1.ListJobsResponse{
			Jobs: []*tcoderv1.Job{{Id: "1" + r.GetPageToken()}, {Id: "2" + r.GetPageToken()}}, NextPageToken: next[r.GetPageToken()],
		}, nil
	}

	var ids []string
	for job, err := range client.ListJobs(t.Context(), tcoder.JobFilter{}) {
		require.NoError(t, err)
		ids = append(ids, job.GetId())
	}
	require.Equal(t, []string{"1", "2", "1b", "2b", "1c", "2c"}, ids)

	tokens = nil
	for _, err := range client.ListJobs(t.Context(), tcoder.JobFilter{}) {
		require.NoError(t, err)

		break
	}
	require.Equal(t, []string{""}, tokens)
}

// An address that can't be one is refused at once.
func TestNewRefusesBadURLs(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "127.0.0.1:8080", "ftp://host", "http://", "http://a b"} {
		_, err := tcoder.New(address)
		require.Error(t, err, address)
	}
}
