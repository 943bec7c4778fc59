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
}

// decoding is a run of FFmpeg that decodes pieces of streams which all begin at
// a time after the container's start, or at the keyframe before.
type decoding struct {
	from    time.Duration
	streams []uint32 // by index

	done  chan struct{}
	lines []string // of what was decoded
	end   exit
	err   error
}

// foresee reads the index, and begins to decode what that makes probable to be
// the edges, beside the reading of the header: by itself that leaves processors
// idle for a third of the time that a probe takes.
func (p *prober) foresee(ctx context.Context) {
	p.index = readIndex(ctx, p.req.Source)

	var (
		heads  []uint32
		finish time.Duration
	)

	for _, handler := range []string{"vide", "soun"} {
		at := slices.IndexFunc(p.index.tracks, func(t indexTrack) bool { return t.handler == handler && t.frames > 0 })
		if at >= 0 {
			end, _ := p.index.tracks[at].end(p.index.timescale)
			heads, finish = append(heads, uint32(at)), max(finish, end)
		}
	}

	if len(heads) == 0 {
		return
	}

	p.ahead = append(p.ahead, p.begin(ctx, 0, heads...))

	if start, ok := tailStart(finish); ok && p.index.tracks[heads[0]].handler == "vide" {
		p.ahead = append(p.ahead, p.begin(ctx, start, heads[0]))
	}
}

// tailStart is where the tail of what lasts so long begins. The head of a short
// clip is most of it.
func tailStart(length time.Duration) (time.Duration, bool) {
	start := length - tailLength

	return start, start > 4*tailLength
}

// decodeEdges decodes the first pictures and sounds, and the last pictures
// where only a table says that they are there, and tells which streams the
// decoder complained of. It fails with INPUT_CORRUPT if a stream gives none, and
// with INPUT_TRUNCATED if the end does.
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
		head, tail        damage
		headFault, noTail error
	)

	sides.Go(func() { head, headFault = p.decodeHeads(ctx, heads) })

	// What a download never fetched is zeros, and read as packets all the same.
	start, long := tailStart(info.GetDuration().AsDuration())
	if long && h.isOne([]string{"mov"}) && isPicture(heads[0].stream) && lasts(heads[0].stream) {
		sides.Go(func() { tail, noTail = p.decode(ctx, start, piece{stream: heads[0].stream, tail: true}) })
	}

	sides.Wait()

	if headFault != nil {
		return nil, headFault
	}

	return append(head, tail...), noTail
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
// takes what was decoded ahead.
func (p *prober) decode(ctx context.Context, from time.Duration, pieces ...piece) (damage, error) {
	var streams []uint32
	for _, one := range pieces {
		streams = append(streams, one.stream.GetIndex())
	}

	run := p.begun(from, streams)
	if run == nil {
		run = p.begin(ctx, from, streams...)
	}

	select {
	case <-run.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}

	if errors.Is(run.err, errTimeLimit) {
		return nil, nil // a stream that starts late or is dear to decode proves nothing
	}

	if run.err != nil {
		return nil, endFault(run.err, run.end.log)
	}

	for i, one := range pieces {
		decoded := slices.ContainsFunc(run.lines, func(line string) bool { return strings.HasPrefix(line, strconv.Itoa(i)+",") })
		if !decoded {
			return nil, exitFault(run.end, one.fault)
		}
	}

	return complaints(run.end.log, pieces), nil
}

// begun finds a decoding that was begun ahead, nil if there is no such one.
func (p *prober) begun(from time.Duration, streams []uint32) *decoding {
	const near = 50 * time.Millisecond

	for _, d := range p.ahead {
		if (d.from-from).Abs() <= near && slices.Equal(d.streams, streams) {
			return d
		}
	}

	return nil
}

// begin begins to decode streams at a time after the container's start, or at
// the keyframe before: a long group of pictures is dear to decode.
func (p *prober) begin(ctx context.Context, from time.Duration, streams ...uint32) *decoding {
	args := append([]string{"-nostdin", "-hide_banner", "-nostats", "-v", "level+error"}, inputArgs(p.req.Limits)...)
	// More threads decode further than is asked for: a third more processor time,
	// and no sooner.
	args = append(args, codecThreads(1)...)

	if from > 0 {
		args = append(args, "-noaccurate_seek", "-ss", seconds(from))
	}

	args = append(args, "-i", p.req.Source.URL)

	for _, index := range streams {
		args = append(args, "-map", input(index))
	}

	// As they are, pictures need not be copied to be listed.
	args = append(args, "-frames:v", strconv.Itoa(headPictures), "-frames:a", strconv.Itoa(headSounds),
		"-fps_mode", "passthrough", "-c:v", "wrapped_avframe", "-f", "framecrc", "-")

	frames := &capture{limit: maxHeadOutput}
	run := p.process(p.tools.FFmpeg, args...)
	run.stdout, run.timeLimit = frames, min(run.timeLimit, headLimit)

	d := &decoding{from: from, streams: streams, done: make(chan struct{})}

	p.work.Go(func() {
		defer close(d.done)

		d.end, d.err = run.run(ctx)
		d.lines = strings.Split(frames.String(), "\n")
	})

	return d
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
