package ffmpeg

import (
	"context"
	"errors"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

var errNotBuilt = errors.New("api only")

// Source is where FFmpeg reads from.
type Source struct {
	// URL is an http URL on a loopback address that answers range requests.
	URL string
	// SizeBytes is the size of the source.
	SizeBytes int64
	// TransferError returns the error that kept URL from serving the true
	// bytes, nil if there was none. FFmpeg takes a broken transfer for the end
	// of the file, so it is asked before any blame goes to the input and before
	// a result is believed. A *Fault is returned as it is (INPUT_MISSING for a
	// source that is gone), any other error as TRANSFER_FAILED of class UNKNOWN.
	// A nil func means that transfers never fail.
	TransferError func() error
}

// ProbeRequest is one probe.
type ProbeRequest struct {
	// Source is what is probed.
	Source Source
	// Limits bound what the source may be; a zero field bounds nothing.
	Limits *tcoderv1.InputLimits
	// TimeLimit bounds the wall time. Default 2 minutes.
	TimeLimit time.Duration
}

// Probe finds out what a source is: its streams, and by decoding the head and
// reading the tail whether they are really there.
func Probe(ctx context.Context, tools Tools, req ProbeRequest) (*tcoderv1.ProbeResult, error) {
	return nil, errNotBuilt
}

// EncodeRequest is one encode.
type EncodeRequest struct {
	// Source is what is encoded.
	Source Source
	// Work is what to make.
	Work *tcoderv1.EncodeWork
	// Dir is an existing, empty folder for the results.
	Dir string
	// TimeLimit bounds the wall time; 0 means no bound.
	TimeLimit time.Duration
	// OnProgress is called about twice a second, from one goroutine at a time
	// and never after Encode has returned. It should not block. Nil means not
	// at all.
	OnProgress func(Progress)
}

// Progress is how far FFmpeg is.
type Progress struct {
	// OutTime is the media time written.
	OutTime time.Duration
	// Fraction is OutTime's share of the whole, 0 to 1.
	Fraction float64
	// Frame is the number of frames of the first video rendition.
	Frame int64
	// FPS is frames per second, Speed media seconds per second.
	FPS, Speed float64
}

// Encode makes one output in req.Dir and returns what it really made: the
// video renditions, largest first, then the audio rendition of HLS. Names of
// objects are their paths below Dir: `720p/init.mp4`, `720p/00000.m4s`,
// `audio/00000.m4s`, `720p.mp4`, `audio.m4a`. Other files in Dir are not part
// of the result.
//
// FFmpeg's process group is dead when it returns. On cancel of ctx it returns
// ctx's error, within twice KillGrace.
func Encode(ctx context.Context, tools Tools, req EncodeRequest) ([]*tcoderv1.EncodedRendition, error) {
	return nil, errNotBuilt
}

// Finished returns the HLS objects below dir that are complete on disk and
// change no more, with name, size and content type, rendition by rendition in
// order. It may be asked at any time during an encode, also from OnProgress.
// MP4 files are not listed: they are complete when Encode returns.
func Finished(dir string) ([]*tcoderv1.EncodedObject, error) { return nil, errNotBuilt }
