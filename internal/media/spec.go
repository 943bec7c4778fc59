package media

import "time"

// OutputKind is what an output is packaged as.
type OutputKind string

// The kinds of output.
const (
	KindMP4 OutputKind = "mp4"
	KindHLS OutputKind = "hls"
)

// VideoCodec is a codec of video renditions.
type VideoCodec string

// The video codecs that a spec may name.
const (
	H264 VideoCodec = "h264"
	HEVC VideoCodec = "hevc"
	AV1  VideoCodec = "av1"
)

// AudioCodec is a codec of audio renditions.
type AudioCodec string

// AAC is AAC-LC, the only audio codec a spec may name.
const AAC AudioCodec = "aac"

// RateControl is how bits are spent.
type RateControl string

// The ways to spend bits.
const (
	CappedCRF RateControl = "capped_crf" // constant quality under the rendition's bitrate
	Bitrate   RateControl = "bitrate"    // the rendition's bitrate whatever the content
)

// CopyPolicy is when a stream of the source is copied instead of encoded.
type CopyPolicy string

// The copy policies.
const (
	CopyNever       CopyPolicy = "never"
	CopyWhenFitting CopyPolicy = "when_fitting"
)

// VideoSettings is how video is encoded. A zero field is not set: it takes
// the preset's value when a Spec is resolved.
type VideoSettings struct {
	Codec         VideoCodec  `json:"codec,omitempty"`
	RateControl   RateControl `json:"rate_control,omitempty"`
	CRF           int         `json:"crf,omitempty"`
	EncoderPreset string      `json:"encoder_preset,omitempty"` // x264's names
	MaxFPS        float64     `json:"max_fps,omitempty"`
	GOPSeconds    float64     `json:"gop_seconds,omitempty"`
}

// AudioSettings is how audio is encoded. A zero field is not set.
type AudioSettings struct {
	Codec      AudioCodec `json:"codec,omitempty"`
	BitrateBPS int        `json:"bitrate_bps,omitempty"`
	Disabled   *bool      `json:"disabled,omitempty"` // nil is not set
}

// HLSSettings is how HLS is packaged. A zero field is not set.
type HLSSettings struct {
	SegmentSeconds float64 `json:"segment_seconds,omitempty"`
}

// OutputSpec is one thing asked for.
type OutputSpec struct {
	Name          string     `json:"name"` // [a-z0-9][a-z0-9-]{0,31}, unique in the spec
	Kind          OutputKind `json:"kind"`
	Qualities     []string   `json:"qualities,omitempty"` // empty: one, of the source's size
	Copy          CopyPolicy `json:"copy,omitempty"`
	MaxRenditions int        `json:"max_renditions,omitempty"` // 0: no bound
}

// Spec is what a job shall produce: a preset and what overrides it, as the
// client asked. Resolve gives the complete one.
type Spec struct {
	Preset    string        `json:"preset,omitempty"`
	Outputs   []OutputSpec  `json:"outputs,omitempty"`
	Qualities []string      `json:"qualities,omitempty"`
	Video     VideoSettings `json:"video,omitzero"`
	Audio     AudioSettings `json:"audio,omitzero"`
	HLS       HLSSettings   `json:"hls,omitzero"`
	Copy      CopyPolicy    `json:"copy,omitempty"`
}

// Limits bound what a source may be. A zero field bounds nothing.
type Limits struct {
	MaxPixels   int64         `json:"max_pixels,omitempty"` // of a frame
	MaxDuration time.Duration `json:"max_duration,omitempty"`
	MaxFPS      float64       `json:"max_fps,omitempty"`
	MaxStreams  int           `json:"max_streams,omitempty"`
}
