package worker

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// TestRun guarantees that a worker as it is deployed probes and encodes a
// source for a control plane on a port, and leaves when it is drained: with its
// own clients, FFmpeg, scratch folder and log.
func TestRun(t *testing.T) {
	t.Parallel()

	media := setupWork(t, mediatest.Clip(t, mediatest.Film))

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)

	plane := servePlane(t, listener, func() {})

	worker, err := New(Config{
		Servers: []string{"http://" + listener.Addr().String()}, ScratchDir: media.scratch, Logger: media.log,
	})
	require.NoError(t, err)

	result := make(chan error, 1)

	var running sync.WaitGroup

	ctx, cancel := context.WithCancelCause(t.Context())

	running.Go(func() { result <- worker.Run(ctx) })
	t.Cleanup(func() {
		cancel(nil)
		running.Wait()
	})

	s, hello := plane.welcomed(t, &tcoderv1.Welcome{})
	require.Equal(t, worker.ID(), hello.GetWorkerId())
	require.Contains(t, hello.GetEncoders(), tcoderv1.VideoCodec_VIDEO_CODEC_H264)
	require.EqualValues(t, 1, hello.GetSlots())

	assignment := media.probe()
	assignment.Source = media.store.signGet(sourcePath)
	s.assign(t, assignment)

	report := first(t, s, getReport)
	require.Len(t, report.GetProbe().GetStreams(), 2, "%s", media.journal)
	s.acknowledge(t, report.GetLease())

	assignment = media.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)
	assignment.Lease.TaskId = "job-1"
	assignment.Source = media.store.signGet(sourcePath)
	s.assign(t, assignment)

	for report = nil; report.GetEncode() == nil; {
		message := first(t, s, func(m *tcoderv1.AttachRequest) *tcoderv1.AttachRequest {
			if m.GetHeartbeat() != nil {
				return nil
			}

			return m
		})
		report = message.GetReport()
		require.Nil(t, report.GetFault(), "%s", media.journal)

		if asked := message.GetSign(); asked != nil {
			requests, err := media.sign(t.Context(), asked.GetObjects())
			require.NoError(t, err)
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Sign{Sign: &tcoderv1.SignResponse{
				RequestId: asked.GetRequestId(), Requests: requests,
			}}})
		}
	}

	media.requireStored(t, report)
	s.acknowledge(t, report.GetLease())

	start := time.Now()

	worker.Drain()
	first(t, s, getDraining)
	s.hungUp(t)
	require.NoError(t, <-result)
	require.Less(t, time.Since(start), DefaultDrainGrace)
}
