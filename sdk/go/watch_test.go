package tcoder_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

type watchStream = connect.ServerStream[tcoderv1.WatchJobResponse]

const lastSequence = 8

// jobAt is the job once the given event has happened; the last one ends it.
func jobAt(sequence uint64) *tcoderv1.Job {
	state := tcoderv1.JobState_JOB_STATE_RUNNING
	if sequence >= lastSequence {
		state = tcoderv1.JobState_JOB_STATE_COMPLETED
	}

	return &tcoderv1.Job{Id: "j", State: state, Sequence: sequence}
}

func eventAt(sequence uint64) *tcoderv1.WatchJobResponse {
	return &tcoderv1.WatchJobResponse{Job: jobAt(sequence), Event: &tcoderv1.JobEvent{Sequence: sequence, JobId: "j"}}
}

// sequences collects the events of a watch.
func sequences(t *testing.T, client *tcoder.Client, opts ...tcoder.WatchOption) (events []uint64, last *tcoderv1.Job) {
	t.Helper()
	for update, err := range client.Watch(t.Context(), "j", opts...) {
		require.NoError(t, err)
		if update.Event != nil {
			events = append(events, update.Event.GetSequence())
		}
		last = update.Job
	}

	return events, last
}

// However often the connection breaks, and whatever a server sends again after
// a reconnect, each event comes once and in order.
func TestWatchLosesNoEvent(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	var streams atomic.Int32
	var asked []uint64
	s.watchJob = func(_ context.Context, r *tcoderv1.WatchJobRequest, stream *watchStream) error {
		n := streams.Add(1)
		asked = append(asked, r.GetAfterSequence())
		now := min(2+uint64(n), lastSequence) // the job goes on between two streams
		require.NoError(t, stream.Send(&tcoderv1.WatchJobResponse{Job: jobAt(now)}))
		first := r.GetAfterSequence() + 1
		if r.GetAfterSequence() == 0 {
			first = now + 1
		} else if n%2 == 0 {
			first-- // one again, as a replica that lags behind might
		}
		for sequence := first; sequence <= now; sequence++ {
			require.NoError(t, stream.Send(eventAt(sequence)))
		}
		switch {
		case now == lastSequence:
			return nil
		case n%3 == 0:
			panic(http.ErrAbortHandler) // the connection breaks
		case n%3 == 1:
			return connect.NewError(connect.CodeInternal, nil)
		default:
			return unavailable(t)
		}
	}

	events, last := sequences(t, client)

	require.Equal(t, []uint64{4, 5, 6, 7, 8}, events)
	require.Equal(t, []uint64{0, 3, 4, 5, 6, 7}, asked)
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, last.GetState())
}

// A stream that the server ends before the job does is opened again.
func TestWatchSurvivesACleanEndOfStream(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.watchJob = func(_ context.Context, r *tcoderv1.WatchJobRequest, stream *watchStream) error {
		return stream.Send(eventAt(r.GetAfterSequence() + 1))
	}

	events, _ := sequences(t, client, tcoder.AfterSequence(5))

	require.Equal(t, []uint64{6, 7, 8}, events)
}

// A silent connection is taken for a dead one.
func TestWatchReopensASilentStream(t *testing.T) {
	t.Parallel()
	s, client := newServer(t, tcoder.WithWatchIdle(50*time.Millisecond))
	var streams atomic.Int32
	s.watchJob = func(ctx context.Context, _ *tcoderv1.WatchJobRequest, stream *watchStream) error {
		if streams.Add(1) < 3 {
			<-ctx.Done()

			return ctx.Err()
		}

		return stream.Send(eventAt(lastSequence))
	}

	events, _ := sequences(t, client)

	require.Equal(t, []uint64{lastSequence}, events)
	require.GreaterOrEqual(t, streams.Load(), int32(3)) // a slow machine reopens more often
}

// A refusal ends a watch at once.
func TestWatchOfAnUnknownJob(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	var streams atomic.Int32
	s.watchJob = func(context.Context, *tcoderv1.WatchJobRequest, *watchStream) error {
		streams.Add(1)

		return refuse(t, connect.CodeNotFound, &tcoderv1.ErrorDetail{Reason: tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND})
	}

	_, err := client.Wait(t.Context(), "j")

	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND, tcoder.ReasonOf(err))
	require.Equal(t, int32(1), streams.Load())
}

// Leaving the loop ends the stream at the server.
func TestWatchEndsWithItsLoop(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	ended := make(chan struct{})
	s.watchJob = func(ctx context.Context, _ *tcoderv1.WatchJobRequest, stream *watchStream) error {
		defer close(ended)
		require.NoError(t, stream.Send(eventAt(1)))
		<-ctx.Done()

		return ctx.Err()
	}

	for _, err := range client.Watch(t.Context(), "j") {
		require.NoError(t, err)

		break
	}

	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		require.Fail(t, "the server still streams")
	}
}

// The end of the caller's context ends a watch with its cause.
func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.watchJob = func(ctx context.Context, _ *tcoderv1.WatchJobRequest, stream *watchStream) error {
		require.NoError(t, stream.Send(eventAt(1)))
		cancel()
		<-ctx.Done()

		return ctx.Err()
	}

	_, err := client.Wait(ctx, "j")

	require.ErrorIs(t, err, context.Canceled)
}

// A job that fails is a result of Wait, not an error.
func TestWaitReturnsFailedJobs(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.watchJob = func(_ context.Context, _ *tcoderv1.WatchJobRequest, stream *watchStream) error {
		return stream.Send(&tcoderv1.WatchJobResponse{Job: &tcoderv1.Job{
			State:   tcoderv1.JobState_JOB_STATE_FAILED,
			Failure: &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		}})
	}

	job, err := client.Wait(t.Context(), "j")

	require.NoError(t, err)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, job.GetFailure().GetReason())
}
