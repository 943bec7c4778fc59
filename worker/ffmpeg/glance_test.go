package ffmpeg_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestProbeGlance guarantees that the edges of a sound MP4 are decoded by the
// program that reads its header, and by others where that isn't enough.
func TestProbeGlance(t *testing.T) {
	t.Parallel()

	film, dir := mediatest.Clip(t, mediatest.Film), t.TempDir()
	made := func(name string, args ...string) string { return ffmpegMakes(t, filepath.Join(dir, name), args...) }

	for path, isEnough := range map[string]bool{
		film: true,
		made("silent.mp4", "-i", film, "-map", "0:v", "-c", "copy"): true,
		made("sound.m4a", "-i", film, "-map", "0:a", "-c", "copy"):  true,
		made("second.mp4", "-i", film, "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy",
			"-disposition:a:0", "0", "-disposition:a:1", "default"): true,
		// Two edits, few pictures a second, and pieces of a second.
		made("late.mp4", "-itsoffset", "3", "-i", film, "-map", "0:v", "-map", "0:a", "-c", "copy"):        false,
		made("slow.mp4", "-i", film, "-vf", "scale=320:180", "-r", "1", "-c:v", "libx264", "-c:a", "copy"): false,
		made("film.ts", "-i", film, "-c", "copy"):                                                          false,
	} {
		source, _ := serve(t, path)
		glancing := tools(t)
		glancing.FFmpeg = filepath.Join(dir, "missing")

		_, err := ffmpeg.Probe(t.Context(), glancing, ffmpeg.ProbeRequest{Source: source, Limits: limits()})
		require.Equal(t, isEnough, err == nil, "%s: %v", path, err)

		for _, stream := range probe(t, source).GetStreams() {
			require.False(t, stream.GetDamaged(), path)
		}
	}
}
