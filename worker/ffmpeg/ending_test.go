package ffmpeg_test

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// TestEncodeSoundEnd guarantees that sound which lasts about as long as some
// segments has no segment of its own for its last frame: with one, players
// don't see the end.
func TestEncodeSoundEnd(t *testing.T) {
	t.Parallel()

	for length, segments := range map[float64]int{3.99: 1, 7.96: 2, 8: 2, 8.02: 2, 8.05: 2, 8.5: 3, 2: 1} {
		source, _ := serve(t, ffmpegMakes(t, filepath.Join(t.TempDir(), "sound.wav"),
			"-f", "lavfi", "-i", "sine=r=48000", "-t", strconv.FormatFloat(length, 'f', -1, 64)))
		_, dir, made := encode(t, source, quick("hls-adaptive"))
		require.Len(t, made[0].GetSegments(), segments, length)
		mediatest.DecodeClean(t, playable(dir, made[0]))

		for _, s := range made[0].GetSegments() {
			require.Greater(t, s.GetDuration().AsDuration().Seconds(), 0.1)
			require.Less(t, s.GetDuration().AsDuration().Seconds(), 4.2)
		}
	}
}

// TestEncodePictureEnd guarantees the same of pictures: the last one or two have
// no segment of their own, whether the source says how many there are or not.
func TestEncodePictureEnd(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]struct{ pictures, segments int }{
		"1.mp4": {193, 2}, "2.mp4": {194, 2}, "3.mp4": {195, 3}, "0.mp4": {192, 2}, "1.ts": {193, 2}, "0.ts": {192, 2}, "one.mp4": {1, 1},
	} {
		source, _ := serve(t, ffmpegMakes(t, filepath.Join(t.TempDir(), name),
			"-f", "lavfi", "-i", "testsrc2=s=426x240:r=24", "-frames:v", strconv.Itoa(want.pictures), "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"))
		spec := quick("hls-adaptive", "240p")
		spec.Copy = media.CopyNever
		_, dir, made := encode(t, source, spec)
		require.EqualValues(t, want.pictures, made[0].GetResult().GetFrameCount(), name)
		require.Len(t, made[0].GetSegments(), want.segments, name)
		mediatest.DecodeClean(t, playable(dir, made[0]))
	}
}
