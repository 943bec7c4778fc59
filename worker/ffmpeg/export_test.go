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
