package ffmpeg

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	// mayBeEmpty is for a tail that a seek may miss.
	mayBeEmpty bool
}

// tailStart is where the tail of what lasts so long begins. The head of a short
// clip is most of it.
func tailStart(length time.Duration) (time.Duration, bool) {
	start := length - tailLength

	return start, start > 4*tailLength
}

// decodeEdges decodes the first pictures and sounds, and the last pictures
// where an index tells how to get there, as far as a glance hasn't shown them, and tells which streams the decoder complained of. It fails with
// INPUT_CORRUPT if a stream gives none, and with INPUT_TRUNCATED if the end does.
func (p *prober) decodeEdges(ctx context.Context, h *header) (damage, error) {
	info := h.result(p.req.Source.SizeBytes)

	var heads []piece

	for _, kind := range []tcoderv1.StreamKind{tcoderv1.StreamKind_STREAM_KIND_VIDEO, tcoderv1.StreamKind_STREAM_KIND_AUDIO} {
		if s := leading(info, kind); s != nil {
			heads = append(heads, piece{stream: s})
		}
	}

	if len(heads) == 0 {
		return nil, nil
	}

	// Each side has a process of its own: in one, FFmpeg would decode all of the
	// last group of pictures before it is content with the first of them.
	var (
		sides             sync.WaitGroup
		hurt, hurtTail    damage
		headFault, noTail error
	)

	if !h.show(heads...) {
		sides.Go(func() { hurt, headFault = p.decodeHeads(ctx, heads) })
	}

	tail := piece{stream: heads[0].stream, tail: true, mayBeEmpty: !h.isOne([]string{"mov"})}
	start, long := tailStart(info.GetDuration().AsDuration())
	shown := h.shows(tail) && h.asked.end >= info.GetStartTime().AsDuration()+start

	// What a download never fetched of an MP4 is zeros, and read as packets all the same.
	if long && h.isOne([]string{"mov", "matroska"}) && isPicture(tail.stream) && (lasts(tail.stream) || tail.mayBeEmpty) && !shown {
		sides.Go(func() { hurtTail, noTail = p.decode(ctx, start, tail) })
	}

	sides.Wait()

	if headFault != nil {
		return nil, headFault
	}

	return append(hurt, hurtTail...), noTail
}

func (p *prober) decodeHeads(ctx context.Context, heads []piece) (damage, error) {
	found, err := p.decode(ctx, 0, heads...)
	if err == nil || len(heads) == 1 || ctx.Err() != nil {
		return found, err
	}

	// One stream without a frame keeps FFmpeg from writing the others: it is
	// allowed to be empty, as long as the others are not.
	for _, one := range heads {
		if lasts(one.stream) {
			alone, err := p.decode(ctx, 0, one)
			if err != nil {
				return nil, err
			}

			found = append(found, alone...)
		}
	}

	return found, nil
}

// lasts reports whether a stream is known to have something.
func lasts(s *tcoderv1.StreamInfo) bool { return s.GetDuration() != nil || s.GetFrameCount() > 0 }

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

// decode decodes pieces that all begin at a time after the container's start, or
// at the keyframe before: a long group of pictures is dear to decode.
func (p *prober) decode(ctx context.Context, from time.Duration, pieces ...piece) (damage, error) {
	args := append([]string{"-nostdin", "-hide_banner", "-nostats", "-v", "level+error"}, inputArgs(p.req.Limits)...)
	// More threads decode further than is asked for: a third more processor time,
	// and no sooner.
	args = append(args, codecThreads(1)...)

	if from > 0 {
		args = append(args, "-noaccurate_seek", "-ss", seconds(from))
	}

	args = append(args, "-i", p.req.Source.URL)

	for _, one := range pieces {
		args = append(args, "-map", input(one.stream.GetIndex()))
	}

	// As they are, pictures need not be copied to be listed.
	args = append(args, "-frames:v", strconv.Itoa(headPictures), "-frames:a", strconv.Itoa(headSounds),
		"-fps_mode", "passthrough", "-c:v", "wrapped_avframe", "-f", "framecrc", "-")

	frames := &capture{limit: maxHeadOutput}
	run := p.process(p.tools.FFmpeg, args...)
	run.stdout, run.timeLimit = frames, min(run.timeLimit, headLimit)

	end, err := run.run(ctx)
	if errors.Is(err, errTimeLimit) {
		return nil, nil // a stream that starts late or is dear to decode proves nothing
	}

	if err != nil {
		return nil, endFault(err, end.log)
	}

	lines := strings.Split(frames.String(), "\n")
	for i, one := range pieces {
		decoded := slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, strconv.Itoa(i)+",") })
		if !decoded && !one.mayBeEmpty {
			return nil, exitFault(end, one.fault)
		}
	}

	return complaints(end.log, pieces), nil
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

// damage are the streams, by index, of which a decoder complained although it
// gave pictures or sounds.
type damage []uint32

// complaints finds out whom the errors in FFmpeg's log are about: the piece
// whose decoder they name, or all.
func complaints(log string, pieces []piece) damage {
	var found damage

	for line := range strings.Lines(log) {
		if !isError(line) {
			continue
		}

		about := slices.DeleteFunc(slices.Clone(pieces), func(one piece) bool { return !strings.HasPrefix(line, "["+one.stream.GetCodec()) })
		if len(about) == 0 {
			about = pieces
		}

		for _, one := range about {
			found = append(found, one.stream.GetIndex())
		}
	}

	return found
}

// isError reports whether a line of FFmpeg's log tells of damage. References to
// pictures that aren't there are what a decoder that starts in the middle of a
// healthy stream complains of too.
func isError(line string) bool {
	if !strings.Contains(line, "[error]") && !strings.Contains(line, "[fatal]") {
		return false
	}

	return !slices.ContainsFunc([]string{
		"mmco:", "reference picture missing", "Missing reference picture", "co located POCs unavailable", "number of reference frames",
	}, func(harmless string) bool { return strings.Contains(line, harmless) })
}

// apply puts what was found into a result.
func (d damage) apply(result *tcoderv1.ProbeResult) {
	for _, s := range result.GetStreams() {
		s.Damaged = slices.Contains(d, s.GetIndex())
	}
}
