package ffmpeg_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestProbeGlance guarantees that the edges of a sound MP4 are decoded by the
// program that reads its header, and are decoded all the same where that can't.
func TestProbeGlance(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)
	dir := t.TempDir()

	for name, isEnough := range map[string]bool{
		film: true,
		ffmpegMakes(t, filepath.Join(dir, "silent.mp4"), "-i", film, "-map", "0:v", "-c", "copy"):                                 true,
		ffmpegMakes(t, filepath.Join(dir, "sound.m4a"), "-i", film, "-map", "0:a", "-c", "copy"):                                  true,
		ffmpegMakes(t, filepath.Join(dir, "late.mp4"), "-itsoffset", "3", "-i", film, "-map", "0:v", "-map", "0:a", "-c", "copy"): false,
		ffmpegMakes(t, filepath.Join(dir, "film.ts"), "-i", film, "-c", "copy"):                                                   false,
	} {
		source, _ := serve(t, name)
		glancing := tools(t)
		glancing.FFmpeg = filepath.Join(dir, "missing")

		found, err := ffmpeg.Probe(t.Context(), glancing, ffmpeg.ProbeRequest{Source: source, Limits: limits()})
		require.Equal(t, isEnough, err == nil, "%s: %v", name, err)

		if isEnough {
			require.Empty(t, found.GetStreams()[0].GetDamaged())
		}

		probe(t, source)
	}
}
