package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// A file that is larger than what the store takes in one PUT is uploaded in
// parts, and is whole.
func TestLargeResult(t *testing.T) {
	t.Parallel()
	const most = 5 << 20
	source := filepath.Join(t.TempDir(), "long.mp4")
	out, err := exec.CommandContext(t.Context(), "ffmpeg", "-v", "error", "-stream_loop", "11",
		"-i", mediatest.Clip(t, mediatest.Film), "-c", "copy", "-movflags", "+faststart", source).CombinedOutput()
	require.NoError(t, err, string(out))

	s := up(t, "--max-put-bytes", "5242880")
	dir := t.TempDir()
	job := transcode(t, s.url, source, "--preset", "web-optimized", "--quality", "720p", "-o", dir)
	requireCompleted(t, job)
	output := job.GetOutputs()[0]
	require.Greater(t, output.GetSizeBytes(), uint64(2*most), "three parts")
	files, err := filepath.Glob(filepath.Join(dir, "*.mp4"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	require.EqualValues(t, output.GetSizeBytes(), info.Size())
	mediatest.RequireFaststart(t, files[0])
	require.Len(t, mediatest.FrameTimes(t, files[0]), int(output.GetRenditions()[0].GetFrameCount()))
}
