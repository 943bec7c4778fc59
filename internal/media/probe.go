package media

import "time"

// StreamKind is the kind of an elementary stream.
type StreamKind string

// The kinds of stream that matter; anything else is StreamOther.
const (
	StreamVideo    StreamKind = "video"
	StreamAudio    StreamKind = "audio"
	StreamSubtitle StreamKind = "subtitle"
	StreamOther    StreamKind = "other"
)

// Rational is a fraction. The zero value means unknown.
type Rational struct {
	Num int64 `json:"num"`
	Den int64 `json:"den"`
}

// Float is the fraction's value, 0 if unknown.
func (r Rational) Float() float64 {
	if r.Den == 0 {
		return 0
	}

	return float64(r.Num) / float64(r.Den)
}

// KeyframeTable is where a stream can be cut: the keyframes of closed groups of
// pictures, at a constant cadence and with every picture shown.
type KeyframeTable struct {
	Frames     []int64  `json:"frames"`      // their places in the order of showing, from 0
	Ticks      []int64  `json:"ticks"`       // when each is shown, from the first
	Timescale  int64    `json:"timescale"`   // ticks per second
	FrameCount int64    `json:"frame_count"` // pictures in all
	FrameRate  Rational `json:"frame_rate"`  // each picture is within 1 ms of its place
	LeadTicks  int64    `json:"lead_ticks"`  // by how much a picture is decoded before it is shown, at most
}

// Stream is one elementary stream of a source, as ffprobe names things.
type Stream struct {
	Index             int           `json:"index"`
	Kind              StreamKind    `json:"kind"`
	Codec             string        `json:"codec"`
	Profile           string        `json:"profile,omitempty"`
	Level             int           `json:"level,omitempty"`
	Width             int           `json:"width,omitempty"`  // coded, before rotation and aspect
	Height            int           `json:"height,omitempty"` // coded, before rotation and aspect
	RotationDegrees   int           `json:"rotation_degrees,omitempty"`
	SampleAspectRatio Rational      `json:"sample_aspect_ratio,omitzero"` // zero is square
	FrameRate         Rational      `json:"frame_rate,omitzero"`          // average
	NominalFrameRate  Rational      `json:"nominal_frame_rate,omitzero"`
	PixelFormat       string        `json:"pixel_format,omitempty"`
	ColorTransfer     string        `json:"color_transfer,omitempty"`
	ColorPrimaries    string        `json:"color_primaries,omitempty"`
	ColorSpace        string        `json:"color_space,omitempty"`
	FieldOrder        string        `json:"field_order,omitempty"`
	HasBFrames        bool          `json:"has_b_frames,omitempty"`
	SampleRateHz      int           `json:"sample_rate_hz,omitempty"`
	Channels          int           `json:"channels,omitempty"`
	BitrateBPS        int64         `json:"bitrate_bps,omitempty"`
	StartTime         time.Duration `json:"start_time,omitempty"`
	Duration          time.Duration `json:"duration,omitempty"`
	FrameCount        int64         `json:"frame_count,omitempty"`
	Language          string        `json:"language,omitempty"`
	Default           bool          `json:"default,omitempty"`
	// Keyframes is known while the job is planned, nil if it is of no use.
	Keyframes *KeyframeTable `json:"keyframes,omitempty"`
	// Untrimmed says that all of it is played, but an encoder's priming.
	Untrimmed bool `json:"untrimmed,omitempty"`
	// Steady says that its pictures follow each other at a constant cadence.
	Steady bool `json:"steady,omitempty"`
	// Damaged says that its start or its end decodes, but not without errors.
	Damaged bool `json:"damaged,omitempty"`
}

// Probe is what a source is. Attached pictures are left out of Streams.
type Probe struct {
	Format     string        `json:"format"`
	Duration   time.Duration `json:"duration"`
	StartTime  time.Duration `json:"start_time,omitempty"`
	SizeBytes  int64         `json:"size_bytes"`
	BitrateBPS int64         `json:"bitrate_bps,omitempty"`
	Streams    []Stream      `json:"streams"`
	MaxGOP     time.Duration `json:"max_gop,omitempty"` // 0 if unknown
}
