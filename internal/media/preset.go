package media

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DefaultPreset is the preset of a spec that names none.
const DefaultPreset = "default"

// The most that one spec may ask for.
const (
	maxOutputs   = 8
	maxQualities = 8
)

// Preset is a named, complete spec.
type Preset struct {
	Name        string
	Description string
	Spec        Spec
}

// SpecError is why a spec can't be resolved. Reason is a pipeline reason:
// UNKNOWN_PRESET, UNKNOWN_QUALITY or SPEC_INVALID. Field is a path in the
// names of the API, below the spec.
type SpecError struct {
	Reason  string
	Field   string
	Message string
}

// Error tells the field and the message.
func (e *SpecError) Error() string { return e.Field + ": " + e.Message }

// Presets returns the presets, the default one first.
func Presets() []Preset {
	sound := false
	base := Spec{
		Video: VideoSettings{
			Codec:         H264,
			RateControl:   CappedCRF,
			CRF:           23,
			EncoderPreset: "veryfast",
			MaxFPS:        60,
			GOPSeconds:    2,
		},
		Audio: AudioSettings{Codec: AAC, BitrateBPS: 128_000, Disabled: &sound},
		HLS:   HLSSettings{SegmentSeconds: 4},
	}
	preset := func(name, description string, output OutputSpec) Preset {
		spec := base
		spec.Preset = name
		spec.Outputs = []OutputSpec{output}

		return Preset{Name: name, Description: description, Spec: spec}
	}

	return []Preset{
		preset(DefaultPreset,
			"A web-ready MP4 of the source's size: streams that are already H.264 or AAC are copied, the rest is encoded.",
			OutputSpec{Name: "mp4", Kind: KindMP4, Copy: CopyWhenFitting}),
		preset("web-optimized",
			"An H.264 and AAC MP4 at each asked quality, encoded anew.",
			OutputSpec{Name: "mp4", Kind: KindMP4, Copy: CopyNever, Qualities: []string{"1080p", "720p", "480p"}}),
		preset("hls",
			"An HLS stream of one rendition with CMAF segments: a source that fits is copied, the rest is encoded.",
			OutputSpec{Name: "hls", Kind: KindHLS, Copy: CopyWhenFitting, Qualities: []string{"1080p"}, MaxRenditions: 1}),
		preset("hls-adaptive",
			"An HLS stream with a ladder of renditions and CMAF segments, for players that adapt to the network."+
				" A source that fits is copied as the largest of them.",
			OutputSpec{Name: "hls", Kind: KindHLS, Copy: CopyWhenFitting, Qualities: []string{"1080p", "720p", "480p", "360p"}}),
	}
}

// Qualities returns the names of qualities, largest first.
func Qualities() []string {
	return []string{"2160p", "1440p", "1080p", "720p", "480p", "360p", "240p"}
}

var outputName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Resolve completes a spec from its preset, so that every field is set, and
// checks it. Resolving a resolved spec changes nothing. The error is a
// *SpecError.
func Resolve(s Spec) (Spec, error) {
	name := s.Preset
	if name == "" {
		name = DefaultPreset
	}
	presets := Presets()
	at := slices.IndexFunc(presets, func(p Preset) bool { return p.Name == name })
	if at < 0 {
		return Spec{}, &SpecError{"UNKNOWN_PRESET", "preset", fmt.Sprintf("no preset is called %q", name)}
	}
	r := presets[at].Spec
	if len(s.Outputs) > 0 {
		r.Outputs = slices.Clone(s.Outputs)
	}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		if len(s.Qualities) > 0 {
			o.Qualities = s.Qualities
		}
		if s.Copy != "" {
			o.Copy = s.Copy
		}
		if o.Copy == "" {
			o.Copy = CopyNever
		}
	}
	r.Video = overrideVideo(r.Video, s.Video)
	r.Audio.Codec = or(s.Audio.Codec, r.Audio.Codec)
	r.Audio.BitrateBPS = or(s.Audio.BitrateBPS, r.Audio.BitrateBPS)
	if s.Audio.Disabled != nil {
		r.Audio.Disabled = s.Audio.Disabled
	}
	r.HLS.SegmentSeconds = or(s.HLS.SegmentSeconds, r.HLS.SegmentSeconds)

	return r, check(r, len(s.Qualities) > 0)
}

func overrideVideo(base, by VideoSettings) VideoSettings {
	return VideoSettings{
		Codec:         or(by.Codec, base.Codec),
		RateControl:   or(by.RateControl, base.RateControl),
		CRF:           or(by.CRF, base.CRF),
		EncoderPreset: or(by.EncoderPreset, base.EncoderPreset),
		MaxFPS:        or(by.MaxFPS, base.MaxFPS),
		GOPSeconds:    or(by.GOPSeconds, base.GOPSeconds),
	}
}

func or[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}

	return b
}

func check(r Spec, overridden bool) error {
	invalid := func(field, format string, args ...any) error {
		return &SpecError{"SPEC_INVALID", field, fmt.Sprintf(format, args...)}
	}
	if len(r.Outputs) > maxOutputs {
		return invalid("outputs", "at most %d outputs", maxOutputs)
	}
	if r.HLS.SegmentSeconds < r.Video.GOPSeconds {
		return invalid("hls.segment_seconds", "a segment must hold at least one GOP of %g s", r.Video.GOPSeconds)
	}
	seen := map[string]bool{}
	for i, o := range r.Outputs {
		at := fmt.Sprintf("outputs[%d].", i)
		if !outputName.MatchString(o.Name) {
			return invalid(at+"name", "a name is 1 to 32 of a-z, 0-9 and dashes")
		}
		if seen[o.Name] {
			return invalid(at+"name", "two outputs are called %q", o.Name)
		}
		seen[o.Name] = true
		if o.Kind != KindMP4 && o.Kind != KindHLS {
			return invalid(at+"kind", "kind must be MP4 or HLS")
		}
		qualities := at + "qualities"
		if overridden {
			qualities = "qualities"
		}
		if err := checkQualities(o, qualities); err != nil {
			return err
		}
	}

	return nil
}

func checkQualities(o OutputSpec, field string) error {
	if len(o.Qualities) > maxQualities {
		return &SpecError{"SPEC_INVALID", field, fmt.Sprintf("at most %d qualities", maxQualities)}
	}
	if o.MaxRenditions > 0 && len(o.Qualities) > o.MaxRenditions {
		return &SpecError{"SPEC_INVALID", field, fmt.Sprintf(
			"this output makes at most %d rendition; the preset hls-adaptive makes several", o.MaxRenditions)}
	}
	for i, q := range o.Qualities {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !slices.Contains(Qualities(), q) {
			return &SpecError{"UNKNOWN_QUALITY", at, fmt.Sprintf("%q is not one of %s", q, strings.Join(Qualities(), " "))}
		}
		if slices.Contains(o.Qualities[:i], q) {
			return &SpecError{"SPEC_INVALID", at, fmt.Sprintf("%q is asked for twice", q)}
		}
	}

	return nil
}

// qualityPixels returns the short side that a quality stands for; the name
// must be one of Qualities.
func qualityPixels(name string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(name, "p"))
	if err != nil {
		return 0
	}

	return n
}
