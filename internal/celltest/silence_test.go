package celltest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestSilentProxy guarantees that a worker behind a proxy which lives though
// what is behind it vanished finds out in time to keep its lease: the proxy
// answers all pings.
func TestSilentProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		c.Proxy(t, "front", "a", celltest.Proxy{})
		w := c.Worker(t, "w", []string{"front", "a"})
		attached(t, "w", a)

		// It may have begun with either.
		for c.Network.Open("w", "front") == 0 {
			c.Network.Cut("w", "a")
			pass(time.Second)
		}

		job := c.Submit(t)
		run := started(t, w)
		pass(23 * time.Second)
		c.Network.Lose("front", "a")
		pass(3 * celltest.Lease)
		require.NoError(t, run.Context.Err())
		run.Finish(t)
		require.Equal(t, pipeline.OutcomeDone, finished(t, c, job, 0).Outcome)
	})
}

// TestStuckReader guarantees that a worker whose connection takes nothing more
// holds up no other, is cut, and keeps its task.
func TestStuckReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		a := c.Replica(t, "a")
		stuck := c.Worker(t, "stuck", []string{"a"})
		attached(t, "stuck", a)
		job := c.Submit(t)
		run := started(t, stuck)
		other := c.Worker(t, "other", []string{"a"})
		attached(t, "other", a)
		pass(time.Minute)

		now := time.Now()

		c.Network.Hold("stuck", "a")

		for range 10 {
			next := c.Submit(t)
			started(t, other).Finish(t)
			started(t, other).Finish(t)
			require.Equal(t, pipeline.JobCompleted, c.Ended(t, next.ID).State)
		}

		require.Zero(t, time.Since(now), "nobody waits for it")
		pass(2 * celltest.Lease)
		require.Len(t, a.Attached(), 2)
		require.NoError(t, run.Context.Err())
		run.Finish(t)
		require.Equal(t, pipeline.OutcomeDone, finished(t, c, job, 0).Outcome)
	})
}

// TestDeafWorker guarantees that a worker which sends and never reads is cut
// before much waits for it.
func TestDeafWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const window = 16 << 10

		c := celltest.New()
		a := c.Replica(t, "a")
		transport := c.Network.Transport("deaf")
		transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: window}

		defer transport.CloseIdleConnections()

		stream, err := tcoderv1connect.NewPoolServiceClient(&http.Client{Transport: transport}, "http://a").Attach(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{
			Hello: &tcoderv1.Hello{WorkerId: "deaf", Slots: 1},
		}}))
		attached(t, "deaf", a)

		heartbeat := &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: &tcoderv1.Heartbeat{}}}
		sent := 0

		for ; err == nil; sent++ {
			require.Less(t, sent, window, "it was never cut")
			pass(time.Millisecond)

			err = stream.Send(heartbeat)
		}

		synctest.Wait()
		require.Empty(t, a.Attached())

		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	})
}
