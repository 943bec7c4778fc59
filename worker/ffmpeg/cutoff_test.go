package ffmpeg_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// TestProbeCutOff guarantees that a media file of which so much is missing that
// nothing can be made of it is told from what is no media file, with what is to
// be done.
func TestProbeCutOff(t *testing.T) {
	t.Parallel()

	const (
		truncated = tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED
		notMedia  = tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA
	)

	read := func(path string) []byte {
		content, err := os.ReadFile(path)
		require.NoError(t, err)

		return content
	}
	tail := read(mediatest.Clip(t, mediatest.TailMoov))
	index := bytes.LastIndex(tail, []byte("moov")) - 4
	require.Greater(t, index, len(tail)/2)

	film, webm := read(mediatest.Clip(t, mediatest.Film)), read(mediatest.Clip(t, mediatest.VP9Opus))
	wav := read(mediatest.Tiny(t, "wav"))

	for name, test := range map[string]struct {
		content []byte
		reason  tcoderv1.ErrorReason
		message string
	}{
		"media cut":        {tail[:len(tail)/3], truncated, "bytes of it are missing"},
		"index cut off":    {tail[:index], truncated, "its index is missing"},
		"index cut":        {tail[:index+200], truncated, "its header says"},
		"head cut":         {film[:300], truncated, "its header says"},
		"Matroska, cut":    {webm[:100], truncated, "bytes of it are missing"},
		"RIFF, cut":        {wav[:24], truncated, "bytes of it are missing"},
		"no media":         {append([]byte("\x00\x00\x00\x10ftypisom\x00\x00\x02\x00"), make([]byte, 8)...), notMedia, "not a media file"},
		"text":             {[]byte("This is a line of English.\n"), notMedia, "not a media file"},
		"a few zeros":      {make([]byte, 40), notMedia, "not a media file"},
		"a document":       {append([]byte("%PDF-1.4\n"), make([]byte, 400)...), notMedia, "not a media file"},
		"length not known": {[]byte("\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"), notMedia, "not a media file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "clip.mp4")
			require.NoError(t, os.WriteFile(path, test.content, 0o600))

			source, _ := serve(t, path)
			found := fault(t, source, limits())
			require.Equal(t, test.reason, found.Reason, found.Message)
			require.Contains(t, found.Message, test.message)

			if test.reason == truncated {
				require.Contains(t, found.Message, "upload the whole file")
			}
		})
	}
}
