package ffmpeg

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// TestCopyWatch guarantees that damage is told of what is copied, and of nothing
// else, however much FFmpeg has to say after it.
func TestCopyWatch(t *testing.T) {
	t.Parallel()

	copies := &tcoderv1.EncodeWork{Output: &tcoderv1.OutputPlan{
		Video: &tcoderv1.VideoPlan{Renditions: []*tcoderv1.RenditionPlan{{Copy: true}, {}}},
		Audio: &tcoderv1.AudioPlan{StreamIndex: 1, Copy: true},
	}}

	for line, want := range map[string]hurt{
		"[h264 @ 0x5] [error] Invalid NAL unit size (7 > 5).":               {picture: true},
		"[warning] http://127.0.0.1/s: corrupt input packet in stream 0":    {picture: true},
		"[warning] http://127.0.0.1/s: corrupt input packet in stream 1":    {sound: true},
		"[warning] http://127.0.0.1/s: corrupt input packet in stream 10":   {},
		"[aac @ 0x5] [error] channel element 2.2 is not allocated":          {sound: true},
		"[aac @ 0x5] [warning] Multiple frames in a packet.":                {},
		"[h264 @ 0x5] [error] error while decoding MB 8 9, bytestream -5":   {},
		"[mp4 @ 0x5] [warning] Timestamps are unset in a packet for stream": {},
	} {
		watch, uncopying := &copyWatch{work: copies}, &copyWatch{work: uncopied(copies)}
		log := line + "\n" + strings.Repeat("[warning] something else\n", maxLog)

		for _, w := range []*copyWatch{watch, uncopying} {
			_, err := w.Write([]byte(log))
			require.NoError(t, err)
		}

		require.Equal(t, want, watch.found, line)
		require.Equal(t, hurt{}, uncopying.found, line)
	}
}
