package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/faultproxy"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestSlowStore guarantees that an encode which is faster than its store takes
// no more than 64 MiB of scratch, whatever it makes, and that what it makes is
// right: FFmpeg is stopped and continued.
func TestSlowStore(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))
	proxy, err := faultproxy.New("tcp", strings.TrimPrefix(b.store.URL, "http://"))
	require.NoError(t, err)
	t.Cleanup(proxy.Close)

	tools, err := ffmpeg.Find()
	require.NoError(t, err)

	b.execute = decorate(&room{disk: b.scratch}, mediaWork{tools: tools, client: b.store.client(t), pacing: defaultPacing()}.execute)
	b.store.URL = "http://" + proxy.Addr() // for results: the source was signed before

	// Nothing is taken before FFmpeg was stopped.
	proxy.Hold(faultproxy.Both)

	sampled, done := make(chan uint64), make(chan struct{})

	go func() {
		var peak uint64

		defer func() { sampled <- peak }()

		look := time.NewTicker(20 * time.Millisecond)
		defer look.Stop()

		for released := false; ; {
			select {
			case <-done:
				return
			case <-look.C:
			}

			peak = max(peak, folderBytes(b.scratch))

			if !released && strings.Contains(b.journal.String(), "FFmpeg waits") {
				released = true

				proxy.Bandwidth(8 << 20)
				proxy.Release()
			}
		}
	}()

	// 80 MiB of segments.
	assignment := b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)
	video := assignment.GetEncode().GetOutput().GetVideo()
	video.Crf = 1
	video.Renditions = []*tcoderv1.RenditionPlan{
		{Name: "1080p", Width: 1920, Height: 1080, VideoBitrateBps: 1_000_000_000},
		{Name: "720p", Width: 1280, Height: 720, VideoBitrateBps: 1_000_000_000},
	}

	report := b.do(t, t.Context(), assignment)

	close(done)

	peak := <-sampled

	b.requireStored(t, report)

	var total uint64
	for _, rendition := range report.GetEncode().GetRenditions() {
		total += rendition.GetResult().GetSizeBytes()
	}

	b.play(t, report.GetEncode().GetRenditions()[1])

	t.Logf("%d MiB of scratch at most, for %d MiB of results", peak>>20, total>>20)
	require.Greater(t, total, uint64(boundedScratch), "there is more to make than fits")
	require.Greater(t, peak, uint64(pauseAbove))
	require.LessOrEqual(t, peak, uint64(boundedScratch))
	require.NotContains(t, b.journal.String(), "pauses=0")
}
