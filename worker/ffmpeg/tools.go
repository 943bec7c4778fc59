package ffmpeg

import (
	"context"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Tools are the FFmpeg programs, and the bounds of every process that is
// made of them. The zero value of a bound means its default.
type Tools struct {
	// FFmpeg and FFprobe are the paths of the programs.
	FFmpeg, FFprobe string
	// StallTimeout ends an encode that makes no progress for so long with
	// TASK_TIMEOUT. Default 60 s.
	StallTimeout time.Duration
	// KillGrace is the time between SIGTERM and SIGKILL. Default 1 s.
	KillGrace time.Duration
	// MaxFileBytes bounds each file that an encode writes. Default 256 GiB.
	MaxFileBytes uint64
}

// Find returns the Tools in $PATH. It fails with ENCODER_MISSING, as the
// machine's fault, if one of the programs isn't there.
func Find() (Tools, error) { return Tools{}, errNotBuilt }

// Encoders returns which of libx264, libx265, libsvtav1 and aac FFmpeg has.
func Encoders(ctx context.Context, tools Tools) ([]string, error) { return nil, errNotBuilt }

// VideoCodecs returns the codecs that a worker with these encoders can make.
func VideoCodecs(encoders []string) []tcoderv1.VideoCodec { return nil }
