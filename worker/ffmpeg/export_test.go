package ffmpeg

import (
	"context"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Decode decodes the start of streams of a source, as a probe does.
func Decode(ctx context.Context, tools Tools, req ProbeRequest, streams []*tcoderv1.StreamInfo) error {
	p := prober{tools: tools.withDefaults(), req: req, deadline: time.Now().Add(req.TimeLimit)}

	var pieces []piece
	for _, s := range streams {
		pieces = append(pieces, piece{stream: s})
	}

	_, err := p.decode(ctx, 0, pieces...)

	return err
}

// Ends are where the streams of a source end: by the packets that ffprobe reads,
// and by the index alone. byIndex is nil if that doesn't tell.
func Ends(ctx context.Context, tools Tools, req ProbeRequest) (byPackets, byIndex map[uint32]time.Duration, err error) {
	p := prober{tools: tools.withDefaults(), req: req, deadline: time.Now().Add(req.TimeLimit)}

	h, err := p.readHeader(ctx)
	if err != nil {
		return nil, nil, err
	}

	times := func(found ends) map[uint32]time.Duration {
		all := map[uint32]time.Duration{}
		for index, e := range found {
			all[index] = e.at
		}

		return all
	}

	read, err := p.findEnds(ctx, h, movie{})
	if err != nil {
		return nil, nil, err
	}

	told, ok := readIndex(ctx, req.Source).ends(h, h.result(req.Source.SizeBytes))
	if !ok {
		return times(read), nil, nil
	}

	return times(read), times(told), nil
}
