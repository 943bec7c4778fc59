package ffmpeg_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestProbeAhead guarantees that what is decoded before the header is known is
// what is asked for then, and that another guess than the header's does no harm.
func TestProbeAhead(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)
	second := ffmpegMakes(t, filepath.Join(t.TempDir(), "second.mp4"), "-i", film, "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy",
		"-disposition:a:0", "0", "-disposition:a:1", "default")

	for path, read := range map[string]bool{film: false, second: true} {
		source, requests := serve(t, path)

		edges, err := ffmpeg.DecodeAhead(t.Context(), tools(t), ffmpeg.ProbeRequest{Source: source, Limits: limits(), TimeLimit: time.Minute})
		require.NoError(t, err)

		before := requests.Load()
		require.NoError(t, edges())
		require.Equal(t, read, requests.Load() > before, path)
	}
}
