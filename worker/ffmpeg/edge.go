package ffmpeg

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// An edge is decoded until there are so many pictures and pieces of sound, at
// most for headLimit.
const (
	headPictures = 12
	headSounds   = 24
	headLimit    = 30 * time.Second
)

// maxHeadOutput bounds the list of what was decoded.
const maxHeadOutput = 64 << 10

// piece is where a stream is decoded: at its start, or as long before its end
// as tailLength.
type piece struct {
	stream *tcoderv1.StreamInfo
	tail   bool
}

// decodeEdges decodes the first pictures and sounds, and the last pictures
// where only a table says that they are there. It fails with INPUT_CORRUPT if a
// stream gives none, and with INPUT_TRUNCATED if the end does.
func (p *prober) decodeEdges(ctx context.Context, h *header) error {
	info := h.result(p.req.Source.SizeBytes)

	var pieces []piece

	for _, kind := range []tcoderv1.StreamKind{tcoderv1.StreamKind_STREAM_KIND_VIDEO, tcoderv1.StreamKind_STREAM_KIND_AUDIO} {
		if s := leading(info, kind); s != nil {
			pieces = append(pieces, piece{stream: s})
		}
	}

	if len(pieces) == 0 {
		return nil
	}

	// What a download never fetched is zeros, and read as packets all the same.
	// The head of a short clip is most of it.
	start := info.GetDuration().AsDuration() - tailLength
	if picture := pieces[0].stream; start > 4*tailLength && h.isOne([]string{"mov"}) && isPicture(picture) {
		pieces = append(pieces, piece{stream: picture, tail: true})
	}

	err := p.decode(ctx, start, pieces)
	if err == nil || len(pieces) == 1 || ctx.Err() != nil {
		return err
	}

	// One stream without a frame keeps FFmpeg from writing the others: it is
	// allowed to be empty, as long as the others are not.
	for _, one := range pieces {
		if one.stream.GetDuration() != nil || one.stream.GetFrameCount() > 0 {
			if err := p.decode(ctx, start, []piece{one}); err != nil {
				return err
			}
		}
	}

	return nil
}

func isPicture(s *tcoderv1.StreamInfo) bool {
	return s.GetKind() == tcoderv1.StreamKind_STREAM_KIND_VIDEO
}

// leading is the stream of a kind that a plan takes: the default one, or the
// first.
func leading(info *tcoderv1.ProbeResult, kind tcoderv1.StreamKind) *tcoderv1.StreamInfo {
	var first *tcoderv1.StreamInfo

	for _, s := range info.GetStreams() {
		if s.GetKind() != kind {
			continue
		}

		if s.GetDefault() {
			return s
		}

		if first == nil {
			first = s
		}
	}

	return first
}

// decode decodes pieces, of which tails start at a time after the container's
// start.
func (p *prober) decode(ctx context.Context, tailStart time.Duration, pieces []piece) error {
	args := append([]string{"-nostdin", "-hide_banner", "-nostats", "-v", "level+error"}, inputArgs(p.req.Limits)...)
	args = append(args, "-i", p.req.Source.URL)

	if slices.ContainsFunc(pieces, func(one piece) bool { return one.tail }) {
		// From the keyframe before: a long group of pictures is dear to decode.
		args = append(append(args, inputArgs(p.req.Limits)...), "-noaccurate_seek", "-ss", seconds(tailStart), "-i", p.req.Source.URL)
	}

	for _, one := range pieces {
		args = append(args, "-map", map[bool]string{false: "0:", true: "1:"}[one.tail]+strconv.FormatUint(uint64(one.stream.GetIndex()), 10))
	}

	args = append(args, "-frames:v", strconv.Itoa(headPictures), "-frames:a", strconv.Itoa(headSounds),
		"-fps_mode", "passthrough", "-f", "framecrc", "-")

	frames := &capture{limit: maxHeadOutput}
	run := p.process(p.tools.FFmpeg, args...)
	run.stdout, run.timeLimit = frames, min(run.timeLimit, headLimit)

	end, err := run.run(ctx)
	if errors.Is(err, errTimeLimit) {
		return nil // a stream that starts late or is dear to decode proves nothing
	}

	if err != nil {
		return endFault(err, end.log)
	}

	lines := strings.Split(frames.String(), "\n")

	for i, one := range pieces {
		decoded := slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, strconv.Itoa(i)+",") })
		if !decoded {
			return exitFault(end, one.fault)
		}
	}

	return nil
}

// fault is the fault of a piece that gives nothing.
func (one piece) fault(log string) *Fault {
	switch {
	case one.tail:
		return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, log, "the end of the source's picture can't be decoded")
	case isPicture(one.stream):
		return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, log, "the source's picture can't be decoded")
	default:
		return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, log, "the source's sound can't be decoded")
	}
}
