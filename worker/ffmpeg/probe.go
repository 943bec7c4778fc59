package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// ProbeRequest is one probe.
type ProbeRequest struct {
	// Source is what is probed.
	Source Source
	// Limits bound what the source may be; a zero field bounds nothing.
	Limits *tcoderv1.InputLimits
	// TimeLimit bounds the wall time. Default 2 minutes.
	TimeLimit time.Duration
}

const defaultProbeLimit = 2 * time.Minute

// Probe finds out what a source is. It doesn't take the header's word for it:
// it decodes the first pictures and sounds and the last pictures, and reads the
// last packets, or where an MP4's index has them. So a file whose end is missing
// fails here with INPUT_TRUNCATED, and durations are those of what is there:
// ProbeResult.duration lasts to the end of the last picture or sound. A picture
// or sound track without a packet is left out, as are attached pictures. A
// stream whose start or end decodes with complaints is told as damaged.
//
// It fails with INPUT_NOT_MEDIA for what is no media file or refers to others,
// INPUT_CORRUPT if nothing of a stream can be decoded, and
// INPUT_LIMIT_EXCEEDED beyond the limits.
func Probe(ctx context.Context, tools Tools, req ProbeRequest) (*tcoderv1.ProbeResult, error) {
	if req.Source.SizeBytes <= 0 {
		return nil, inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, "", "the source is empty")
	}

	if req.TimeLimit <= 0 {
		req.TimeLimit = defaultProbeLimit
	}

	p := prober{tools: tools.withDefaults(), req: req, deadline: time.Now().Add(req.TimeLimit)}

	result, err := p.probe(ctx)
	if err != nil {
		return nil, p.blame(ctx, err)
	}

	if err := transferFault(req.Source, ""); err != nil {
		return nil, err
	}

	return result, nil
}

// blame gives a failure to the transfer if that failed: the input then only
// looks broken.
func (p *prober) blame(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}

	log := ""

	if fault, ok := errors.AsType[*Fault](err); ok {
		log = fault.Log
	}

	if transfer := transferFault(p.req.Source, log); transfer != nil {
		return transfer
	}

	return err
}

// prober is one probe under way.
type prober struct {
	tools    Tools
	req      ProbeRequest
	deadline time.Time
	index    movie
}

func (p *prober) process(path string, args ...string) *process {
	return &process{
		path: path, args: args, timeLimit: max(time.Until(p.deadline), time.Millisecond), killGrace: p.tools.KillGrace,
		maxMemoryBytes: p.tools.MaxMemoryBytes, sandbox: p.tools.Sandbox, port: p.req.Source.port(),
	}
}

// asideLimit is how long what only saves work may take.
func (p *prober) asideLimit() time.Duration {
	const share = 4

	return p.req.TimeLimit / share
}

func (p *prober) readIndex(ctx context.Context) movie {
	ctx, cancel := context.WithTimeout(ctx, p.asideLimit())
	defer cancel()

	return readIndex(ctx, p.req.Source)
}

func (p *prober) probe(ctx context.Context) (*tcoderv1.ProbeResult, error) {
	p.index = p.readIndex(ctx)

	header, err := p.readHeader(ctx)
	if err != nil {
		return nil, err
	}

	if err := checkLimits(header.result(p.req.Source.SizeBytes), p.req.Limits); err != nil {
		return nil, err
	}

	if !header.isOne([]string{"mov"}) {
		p.index = movie{}
	}

	var (
		found ends
		hurt  damage
	)

	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		hurt, err = p.decodeEdges(groupCtx, header)

		return err
	})
	group.Go(func() (err error) {
		found, err = p.findEnds(groupCtx, header, p.index)

		return err
	})

	if err := group.Wait(); err != nil {
		return nil, err
	}

	result := header.result(p.req.Source.SizeBytes)
	found.apply(result)
	hurt.apply(result)
	p.index.tell(result)

	return result, checkLimits(result, p.req.Limits)
}

// checkLimits refuses what passes a limit.
func checkLimits(result *tcoderv1.ProbeResult, limits *tcoderv1.InputLimits) error {
	exceeded := func(format string, args ...any) error {
		return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED, "", fmt.Sprintf(format, args...))
	}

	if most := limits.GetMaxDuration().AsDuration(); most > 0 && result.GetDuration().AsDuration() > most {
		return exceeded("the source lasts %s, the limit is %s", result.GetDuration().AsDuration().Round(time.Second), most)
	}

	if most := limits.GetMaxStreams(); most > 0 && len(result.GetStreams()) > int(most) {
		return exceeded("the source has %d streams, the limit is %d", len(result.GetStreams()), most)
	}

	for _, s := range result.GetStreams() {
		if s.GetKind() != tcoderv1.StreamKind_STREAM_KIND_VIDEO {
			continue
		}

		if most := limits.GetMaxPixels(); most > 0 && uint64(s.GetWidth())*uint64(s.GetHeight()) > most {
			return exceeded("the source's picture has %d x %d pixels, the limit is %d pixels", s.GetWidth(), s.GetHeight(), most)
		}

		if most := limits.GetMaxFps(); most > 0 && fps(s) > most {
			return exceeded("the source has %.6g frames per second, the limit is %.6g", fps(s), most)
		}
	}

	return nil
}

// fps is a stream's average frame rate, 0 if unknown.
func fps(s *tcoderv1.StreamInfo) float64 {
	if s.GetFrameRate().GetDen() == 0 {
		return 0
	}

	return float64(s.GetFrameRate().GetNum()) / float64(s.GetFrameRate().GetDen())
}

// isMedia reports whether a stream is picture or sound.
func isMedia(s *tcoderv1.StreamInfo) bool {
	return s.GetKind() == tcoderv1.StreamKind_STREAM_KIND_VIDEO || s.GetKind() == tcoderv1.StreamKind_STREAM_KIND_AUDIO
}

// apply puts what was found into a result.
func (e ends) apply(result *tcoderv1.ProbeResult) {
	var (
		kept []*tcoderv1.StreamInfo
		last time.Duration
	)

	for _, s := range result.GetStreams() {
		if isMedia(s) {
			end, known := e[s.GetIndex()]
			if known && end.packets == 0 && end.complete {
				continue // a track without a packet
			}

			if known && end.packets > 0 {
				s.Duration = durationpb.New(max(0, end.at-s.GetStartTime().AsDuration()))
			}

			if s.GetDuration() != nil {
				last = max(last, s.GetStartTime().AsDuration()+s.GetDuration().AsDuration())
			}
		}

		kept = append(kept, s)
	}

	result.Streams = kept

	if start := result.GetStartTime().AsDuration(); last > start {
		result.Duration = durationpb.New(last - start)
	}
}
