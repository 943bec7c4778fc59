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

// The head is decoded until there are so many pictures and pieces of sound,
// at most for headLimit.
const (
	headPictures = 12
	headSounds   = 24
	headLimit    = 30 * time.Second
)

// maxHeadOutput bounds the list of what was decoded.
const maxHeadOutput = 64 << 10

// decodeHead decodes the first pictures and sounds. It fails with
// INPUT_CORRUPT if a stream gives none.
func (p *prober) decodeHead(ctx context.Context, h *header) error {
	info := h.result(p.req.Source.SizeBytes)

	var streams []*tcoderv1.StreamInfo

	for _, kind := range []tcoderv1.StreamKind{tcoderv1.StreamKind_STREAM_KIND_VIDEO, tcoderv1.StreamKind_STREAM_KIND_AUDIO} {
		if s := leading(info, kind); s != nil {
			streams = append(streams, s)
		}
	}

	if len(streams) == 0 {
		return nil
	}

	err := p.decode(ctx, streams)
	if err == nil || len(streams) == 1 || ctx.Err() != nil {
		return err
	}

	// One stream without a frame keeps FFmpeg from writing the other: it is
	// allowed to be empty, as long as the other is not.
	for _, s := range streams {
		if s.GetDuration() != nil || s.GetFrameCount() > 0 {
			if err := p.decode(ctx, []*tcoderv1.StreamInfo{s}); err != nil {
				return err
			}
		}
	}

	return nil
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

func (p *prober) decode(ctx context.Context, streams []*tcoderv1.StreamInfo) error {
	args := append([]string{"-nostdin", "-hide_banner", "-nostats", "-v", "level+error"}, inputArgs(p.req.Limits)...)
	args = append(args, "-i", p.req.Source.URL)

	for _, s := range streams {
		args = append(args, "-map", input(s.GetIndex()))
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

	for i := range streams {
		decoded := slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, strconv.Itoa(i)+",") })
		if !decoded {
			return exitFault(end, func(log string) *Fault {
				return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, log, "the source's "+
					map[bool]string{true: "picture", false: "sound"}[streams[i].GetKind() == tcoderv1.StreamKind_STREAM_KIND_VIDEO]+
					" can't be decoded")
			})
		}
	}

	return nil
}
