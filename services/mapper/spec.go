package mapper

import (
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
)

// SpecToProto returns the message of a spec.
func SpecToProto(s media.Spec) *tcoderv1.JobSpec {
	return &tcoderv1.JobSpec{
		Preset:    s.Preset,
		Outputs:   mapSlice(s.Outputs, outputSpecToProto),
		Qualities: s.Qualities,
		Video:     videoSettingsToProto(s.Video),
		Audio:     audioSettingsToProto(s.Audio),
		Hls:       hlsSettingsToProto(s.HLS),
		Copy:      enumToProto[tcoderv1.CopyPolicy](tcoderv1.CopyPolicy_value, prefixCopyPolicy, s.Copy),
	}
}

// SpecFromProto returns the spec of a message; the zero spec for nil.
func SpecFromProto(s *tcoderv1.JobSpec) media.Spec {
	return media.Spec{
		Preset:    s.GetPreset(),
		Outputs:   mapSlice(s.GetOutputs(), outputSpecFromProto),
		Qualities: s.GetQualities(),
		Video: media.VideoSettings{
			Codec:         videoCodecFromProto(s.GetVideo().GetCodec()),
			RateControl:   lowerFromProto[media.RateControl](tcoderv1.RateControl_name, prefixRateControl, s.GetVideo().GetRateControl()),
			CRF:           int(s.GetVideo().GetCrf()),
			EncoderPreset: s.GetVideo().GetEncoderPreset(),
			MaxFPS:        s.GetVideo().GetMaxFps(),
			GOPSeconds:    s.GetVideo().GetGopSeconds(),
		},
		Audio: audioSettingsFromProto(s.GetAudio()),
		HLS:   media.HLSSettings{SegmentSeconds: s.GetHls().GetSegmentSeconds()},
		Copy:  lowerFromProto[media.CopyPolicy](tcoderv1.CopyPolicy_name, prefixCopyPolicy, s.GetCopy()),
	}
}

// PresetToProto returns the message of a preset.
func PresetToProto(p media.Preset) *tcoderv1.Preset {
	return &tcoderv1.Preset{Name: p.Name, Description: p.Description, Spec: SpecToProto(p.Spec)}
}

func outputSpecToProto(o media.OutputSpec) *tcoderv1.OutputSpec {
	return &tcoderv1.OutputSpec{
		Name:          o.Name,
		Kind:          outputKindToProto(o.Kind),
		Qualities:     o.Qualities,
		Copy:          enumToProto[tcoderv1.CopyPolicy](tcoderv1.CopyPolicy_value, prefixCopyPolicy, o.Copy),
		MaxRenditions: uint32(o.MaxRenditions),
	}
}

func outputSpecFromProto(o *tcoderv1.OutputSpec) media.OutputSpec {
	return media.OutputSpec{
		Name:          o.GetName(),
		Kind:          lowerFromProto[media.OutputKind](tcoderv1.OutputKind_name, prefixOutputKind, o.GetKind()),
		Qualities:     o.GetQualities(),
		Copy:          lowerFromProto[media.CopyPolicy](tcoderv1.CopyPolicy_name, prefixCopyPolicy, o.GetCopy()),
		MaxRenditions: int(o.GetMaxRenditions()),
	}
}

func videoSettingsToProto(v media.VideoSettings) *tcoderv1.VideoSettings {
	if v == (media.VideoSettings{}) {
		return nil
	}

	return &tcoderv1.VideoSettings{
		Codec:         videoCodecToProto(v.Codec),
		RateControl:   rateControlToProto(v.RateControl),
		Crf:           optional(uint32(v.CRF)),
		EncoderPreset: optional(v.EncoderPreset),
		MaxFps:        optional(v.MaxFPS),
		GopSeconds:    optional(v.GOPSeconds),
	}
}

func audioSettingsToProto(a media.AudioSettings) *tcoderv1.AudioSettings {
	if a == (media.AudioSettings{}) {
		return nil
	}

	return &tcoderv1.AudioSettings{
		Codec:      audioCodecToProto(a.Codec),
		BitrateBps: optional(uint32(a.BitrateBPS)),
		Disabled:   a.Disabled,
	}
}

func audioSettingsFromProto(a *tcoderv1.AudioSettings) media.AudioSettings {
	if a == nil {
		return media.AudioSettings{}
	}

	return media.AudioSettings{
		Codec:      lowerFromProto[media.AudioCodec](tcoderv1.AudioCodec_name, prefixAudioCodec, a.GetCodec()),
		BitrateBPS: int(a.GetBitrateBps()),
		Disabled:   a.Disabled, // the getter hides whether it is set
	}
}

func hlsSettingsToProto(h media.HLSSettings) *tcoderv1.HlsSettings {
	if h == (media.HLSSettings{}) {
		return nil
	}

	return &tcoderv1.HlsSettings{SegmentSeconds: optional(h.SegmentSeconds)}
}

// videoCodecToProto returns the API's value of a video codec.
func videoCodecToProto(c media.VideoCodec) tcoderv1.VideoCodec {
	return enumToProto[tcoderv1.VideoCodec](tcoderv1.VideoCodec_value, prefixVideoCodec, c)
}

func videoCodecFromProto(v tcoderv1.VideoCodec) media.VideoCodec {
	return lowerFromProto[media.VideoCodec](tcoderv1.VideoCodec_name, prefixVideoCodec, v)
}

func audioCodecToProto(c media.AudioCodec) tcoderv1.AudioCodec {
	return enumToProto[tcoderv1.AudioCodec](tcoderv1.AudioCodec_value, prefixAudioCodec, c)
}

func rateControlToProto(r media.RateControl) tcoderv1.RateControl {
	return enumToProto[tcoderv1.RateControl](tcoderv1.RateControl_value, prefixRateControl, r)
}

func outputKindToProto(k media.OutputKind) tcoderv1.OutputKind {
	return enumToProto[tcoderv1.OutputKind](tcoderv1.OutputKind_value, prefixOutputKind, k)
}
