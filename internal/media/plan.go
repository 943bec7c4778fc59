package media

import (
	"slices"
	"time"
)

// RenditionPlan is one video rendition to be made.
type RenditionPlan struct {
	Name            string `json:"name"` // in paths and playlists: 720p
	Width           int    `json:"width"`
	Height          int    `json:"height"`
	VideoBitrateBPS int    `json:"video_bitrate_bps"`
	Copy            bool   `json:"copy,omitempty"`
}

// VideoPlan is the video half of an output.
type VideoPlan struct {
	StreamIndex    int             `json:"stream_index"`
	Codec          VideoCodec      `json:"codec"`
	RateControl    RateControl     `json:"rate_control"`
	CRF            int             `json:"crf,omitempty"`
	EncoderPreset  string          `json:"encoder_preset"`
	FrameRate      Rational        `json:"frame_rate"` // constant
	GOPFrames      int             `json:"gop_frames"`
	Deinterlace    bool            `json:"deinterlace,omitempty"`
	ToneMap        bool            `json:"tone_map,omitempty"`
	Renditions     []RenditionPlan `json:"renditions"` // largest first
	ExpectedFrames int64           `json:"expected_frames,omitempty"`
	// SegmentStarts are the first frames of the segments, where those are cut at
	// keyframes of the source because a rendition is copied. None: all segments
	// are equally long.
	SegmentStarts []int64 `json:"segment_starts,omitempty"`
}

// AudioPlan is the audio half of an output.
type AudioPlan struct {
	Name         string     `json:"name"` // in paths and playlists: audio
	StreamIndex  int        `json:"stream_index"`
	Codec        AudioCodec `json:"codec"`
	BitrateBPS   int        `json:"bitrate_bps"`
	Channels     int        `json:"channels"`
	SampleRateHz int        `json:"sample_rate_hz"`
	Copy         bool       `json:"copy,omitempty"`
	Language     string     `json:"language,omitempty"`
}

// Chunk is a range of frames that one task encodes, counted from 0 at the
// plan's cadence. It begins with a segment.
type Chunk struct {
	First int64 `json:"first"`
	End   int64 `json:"end"` // the frame after its last
	// Renditions are the names of those that it makes; none: all of the plan.
	Renditions []string `json:"renditions,omitempty"`
	// Keyframe is when the keyframe of the source is shown from which decoding
	// begins, from the source's start; 0 if that isn't known.
	Keyframe time.Duration `json:"keyframe,omitempty"`
}

// OutputPlan is one output to be made.
type OutputPlan struct {
	Name           string     `json:"name"`
	Kind           OutputKind `json:"kind"`
	Video          *VideoPlan `json:"video,omitempty"` // nil for audio-only
	Audio          *AudioPlan `json:"audio,omitempty"` // nil for silent sources
	SegmentSeconds float64    `json:"segment_seconds,omitempty"`
	// Chunks are the picture's tasks in playback order; the sound is one task
	// more. None: one task makes all of the output.
	Chunks []Chunk `json:"chunks,omitempty"`
	// Intermediate says that it only serves other outputs as material: nobody
	// asked for it, and it isn't published.
	Intermediate bool `json:"intermediate,omitempty"`
	// Assembled are the files of an MP4 output that are put together of segments,
	// each by a task. The others are made of the source, by one task.
	Assembled []Assembly `json:"assembled,omitempty"`
}

// Assembly is a file that is put together of segments.
type Assembly struct {
	Rendition string `json:"rendition"`
	From      string `json:"from"` // the HLS output that has a rendition of this name, and the sound
}

// Plan is what a source and a spec come to.
type Plan struct {
	Outputs  []OutputPlan  `json:"outputs"` // in the spec's order, then the intermediate ones
	Duration time.Duration `json:"duration"`
	Notes    []string      `json:"notes,omitempty"` // what was left out, and why
}

// HasMaterial says that tasks make segments that no output names in the end.
func (p Plan) HasMaterial() bool {
	return slices.ContainsFunc(p.Outputs, func(o OutputPlan) bool { return o.Intermediate })
}

// RenditionResult is a rendition as it was really produced.
type RenditionResult struct {
	Name              string        `json:"name"`
	Codecs            string        `json:"codecs"` // RFC 6381
	Width             int           `json:"width,omitempty"`
	Height            int           `json:"height,omitempty"`
	FrameRate         Rational      `json:"frame_rate,omitzero"`
	Duration          time.Duration `json:"duration"`
	SizeBytes         int64         `json:"size_bytes"`
	AverageBitrateBPS int64         `json:"average_bitrate_bps"`
	PeakBitrateBPS    int64         `json:"peak_bitrate_bps"`
	FrameCount        int64         `json:"frame_count,omitempty"`
	Copied            bool          `json:"copied,omitempty"`
	Codec             string        `json:"codec,omitempty"`   // FFmpeg's name, of the picture if there is one
	Profile           string        `json:"profile,omitempty"` // FFmpeg's name
	Level             string        `json:"level,omitempty"`   // as people write it: 4.1
	// SourceDamaged says that what was to be copied showed to be damaged.
	SourceDamaged bool `json:"source_damaged,omitempty"`
}

// EncodedObject is a segment or a file that an attempt uploaded.
type EncodedObject struct {
	Name        string        `json:"name"` // below the attempt's folder
	SizeBytes   int64         `json:"size_bytes"`
	Duration    time.Duration `json:"duration,omitempty"` // of a media segment
	ContentType string        `json:"content_type"`
}

// EncodedRendition is a rendition that an attempt made.
type EncodedRendition struct {
	Result      RenditionResult `json:"result"`
	InitSegment *EncodedObject  `json:"init_segment,omitempty"` // HLS
	Segments    []EncodedObject `json:"segments,omitempty"`     // HLS, in order
	File        *EncodedObject  `json:"file,omitempty"`         // MP4
}

// UploadedSegments are segments of one rendition that an attempt has uploaded
// before it ends.
type UploadedSegments struct {
	Rendition RenditionResult `json:"rendition"` // name, codecs, and of a picture its size and cadence
	Init      EncodedObject   `json:"init"`
	First     int             `json:"first"` // position of the first among those that the task makes, from 0
	Segments  []EncodedObject `json:"segments"`
}

// EncodeResult is what an encode attempt made.
type EncodeResult struct {
	Renditions []EncodedRendition `json:"renditions"` // largest first, then audio
}

// OutputObject is a stored file of an output.
type OutputObject struct {
	Name        string `json:"name"` // below the output's folder
	Key         string `json:"key"`  // in the output bucket
	SizeBytes   int64  `json:"size_bytes"`
	ContentType string `json:"content_type"`
}

// Output is an output as it was published.
type Output struct {
	Name       string            `json:"name"`
	Kind       OutputKind        `json:"kind"`
	Entry      string            `json:"entry"` // the object to open
	Objects    []OutputObject    `json:"objects"`
	Renditions []RenditionResult `json:"renditions"`
	Duration   time.Duration     `json:"duration"`
	SizeBytes  int64             `json:"size_bytes"`
}
