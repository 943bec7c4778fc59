package ffmpeg

import (
	"fmt"
	"slices"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// hurt tells what of a source showed to be damaged while it was copied.
type hurt struct{ picture, sound bool }

func (h hurt) any() bool { return h.picture || h.sound }

// copyWatch reads FFmpeg's log as it is written, for damage of what is copied:
// only the end of the log is kept, and a film may be damaged at its start.
type copyWatch struct {
	lines

	work  *tcoderv1.EncodeWork
	found hurt
}

// Write takes any piece of the log.
func (w *copyWatch) Write(data []byte) (int, error) {
	const longest = 4 << 10 // FFmpeg cuts its lines at 1 KiB

	w.split(data, longest, func(line []byte) { w.take(string(line)) })

	return len(data), nil
}

// take looks at a line. Of pictures it tells what a look at the packets does:
// FFmpeg parses them, and complains of lengths that can't be. Sound is decoded,
// see soundCheck. Both are damaged where the demuxer found them broken.
func (w *copyWatch) take(line string) {
	video, audio := w.work.GetOutput().GetVideo(), w.work.GetOutput().GetAudio()
	broken := func(stream uint32) bool {
		return strings.HasSuffix(line, fmt.Sprintf("corrupt input packet in stream %d", stream))
	}

	if slices.ContainsFunc(video.GetRenditions(), (*tcoderv1.RenditionPlan).GetCopy) {
		w.found.picture = w.found.picture || strings.Contains(line, "Invalid NAL unit size") || broken(video.GetStreamIndex())
	}

	if audio.GetCopy() {
		w.found.sound = w.found.sound || isError(line) && strings.HasPrefix(line, "[aac") || broken(audio.GetStreamIndex())
	}
}

// soundCheck is one more output, of nothing: it decodes the sound that is
// copied, for the decoder to complain of what is damaged. Packets alone don't
// tell. It takes 0.04 s of processor time for a minute. Only AAC is copied, for
// which every FFmpeg has a decoder.
func soundCheck(work *tcoderv1.EncodeWork) []string {
	audio := work.GetOutput().GetAudio()
	if !audio.GetCopy() {
		return nil
	}

	var args []string

	// A copy doesn't fail for what a decoder makes of it.
	if len(encodedOf(work.GetOutput().GetVideo())) == 0 {
		args = append(args, "-max_error_rate", "1")
	}

	// Damage may claim dozens of channels, which FFmpeg can't mix and gives up at.
	// The first one is always there.
	args = append(args, "-map", input(audio.GetStreamIndex()), "-af", "pan=mono|c0=c0")

	return append(append(args, commonArgs(work)...), "-f", "null", "nothing")
}
