package ffmpeg

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// TestGlanceShows guarantees that frames prove only the piece that they are of.
func TestGlanceShows(t *testing.T) {
	t.Parallel()

	const tail = 8 * time.Second

	film := &tcoderv1.StreamInfo{Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, FrameCount: 240}
	sound := &tcoderv1.StreamInfo{Index: 0, Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO, FrameCount: 470}
	head, headSound, end := piece{stream: film}, piece{stream: sound}, piece{stream: film, tail: true}

	frames := func(stream uint32, n int, from time.Duration) (all []glanceFrame) {
		for i := range n {
			all = append(all, glanceFrame{Stream: stream, At: fmt.Sprintf("%.6f", (from + time.Duration(i)*20*time.Millisecond).Seconds())})
		}

		return all
	}
	seen := func(all ...[]glanceFrame) glance {
		return glance{Frames: slices.Concat(all...), asked: edges{packets: 36, stream: 1, tail: tail, end: 10 * time.Second, pictures: 48}}
	}

	whole := seen(frames(1, 12, 0), frames(0, 24, 0), frames(1, 12, tail))
	require.True(t, whole.show(head, headSound, end))

	late := whole
	late.asked.tail = 0
	require.True(t, late.show(head, headSound))
	require.False(t, late.shows(end), "nobody asked for it")

	complained := whole
	complained.complained = true
	require.False(t, complained.shows(head))

	require.False(t, seen(frames(1, 7, 0)).shows(head), "few pictures")
	require.False(t, seen(frames(0, 15, 0)).shows(headSound), "few sounds")
	require.False(t, seen(frames(1, 12, 0)).shows(end), "the head isn't the tail")
	require.False(t, seen(frames(1, 12, tail)).shows(head), "the tail isn't the head")
	require.False(t, seen(frames(0, 24, tail-time.Second)).shows(headSound), "what precedes the tail isn't the head")
	require.False(t, seen(make([]glanceFrame, 24)).shows(headSound), "without a time")
	require.False(t, seen(frames(0, 12, tail)).shows(piece{stream: sound, tail: true}), "the tail is another stream's")

	short := whole
	short.asked.pictures = 2
	short.Frames = frames(1, 2, tail)
	require.True(t, short.shows(end), "as many as there are")

	one := &tcoderv1.StreamInfo{Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, FrameCount: 1}
	require.True(t, glance{Frames: frames(1, 1, 0)}.shows(piece{stream: one}))
}
