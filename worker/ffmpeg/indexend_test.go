package ffmpeg_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestIndexEnds guarantees that streams end where they do by their packets
// where the index of an MP4 is taken at its word (an edit may cut a fraction of
// a piece of sound), and that it is for most of what cameras and encoders write.
func TestIndexEnds(t *testing.T) {
	t.Parallel()

	for id, told := range map[mediatest.ID]bool{
		mediatest.Film: true, mediatest.Rotated: true, mediatest.Portrait: true, mediatest.VariableRate: false, mediatest.HighRate: true,
		mediatest.NoAudio: true, mediatest.Surround: true, mediatest.HDR10: true, mediatest.TailMoov: true, mediatest.OneFrame: true,
		mediatest.FlashBeep: true, mediatest.ProRes: true, mediatest.AudioOnly: true, mediatest.VP9Opus: false, mediatest.OffsetStart: false,
	} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			byPackets, byIndex, err := ffmpeg.Ends(t.Context(), tools(t), ffmpeg.ProbeRequest{Source: clip(t, id), TimeLimit: time.Minute})
			require.NoError(t, err)
			require.Equal(t, told, byIndex != nil)

			for index, at := range byIndex {
				require.InDelta(t, byPackets[index].Seconds(), at.Seconds(), 1e-3, "stream %d", index)
			}
		})
	}
}

// TestIndexEndsCut guarantees that an index isn't taken at its word where the
// file has less than it tells of.
func TestIndexEndsCut(t *testing.T) {
	t.Parallel()

	whole, err := os.ReadFile(mediatest.Clip(t, mediatest.Film))
	require.NoError(t, err)

	path := filepath.Join(t.TempDir(), "cut.mp4")
	require.NoError(t, os.WriteFile(path, whole[:len(whole)-1], 0o600))

	source, _ := serve(t, path)
	_, byIndex, err := ffmpeg.Ends(t.Context(), tools(t), ffmpeg.ProbeRequest{Source: source, TimeLimit: time.Minute})
	require.NoError(t, err)
	require.Nil(t, byIndex)
}
