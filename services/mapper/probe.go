package mapper

import (
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
)

// ProbeToProto returns the message of a probe.
func ProbeToProto(p media.Probe) *tcoderv1.ProbeResult {
	return &tcoderv1.ProbeResult{
		Format:     p.Format,
		Duration:   durationToProto(p.Duration),
		StartTime:  durationToProto(p.StartTime),
		SizeBytes:  uint64(p.SizeBytes),
		BitrateBps: uint64(p.BitrateBPS),
		Streams:    mapSlice(p.Streams, streamToProto),
		MaxGop:     durationToProto(p.MaxGOP),
	}
}

// ProbeFromProto returns the probe of a worker's message.
func ProbeFromProto(p *tcoderv1.ProbeResult) media.Probe {
	return media.Probe{
		Format:     word(p.GetFormat()),
		Duration:   p.GetDuration().AsDuration(),
		StartTime:  p.GetStartTime().AsDuration(),
		SizeBytes:  sizeFromProto(p.GetSizeBytes()),
		BitrateBPS: sizeFromProto(p.GetBitrateBps()),
		Streams:    mapSlice(p.GetStreams(), streamFromProto),
		MaxGOP:     p.GetMaxGop().AsDuration(),
	}
}

func streamToProto(s media.Stream) *tcoderv1.StreamInfo {
	return &tcoderv1.StreamInfo{
		Index:             uint32(s.Index),
		Kind:              enumToProto[tcoderv1.StreamKind](tcoderv1.StreamKind_value, prefixStreamKind, s.Kind),
		Codec:             s.Codec,
		Profile:           s.Profile,
		Level:             int32(s.Level),
		Width:             uint32(s.Width),
		Height:            uint32(s.Height),
		RotationDegrees:   uint32(s.RotationDegrees),
		SampleAspectRatio: rationalToProto(s.SampleAspectRatio),
		FrameRate:         rationalToProto(s.FrameRate),
		NominalFrameRate:  rationalToProto(s.NominalFrameRate),
		PixelFormat:       s.PixelFormat,
		ColorTransfer:     s.ColorTransfer,
		ColorPrimaries:    s.ColorPrimaries,
		ColorSpace:        s.ColorSpace,
		FieldOrder:        s.FieldOrder,
		HasBFrames:        s.HasBFrames,
		SampleRateHz:      uint32(s.SampleRateHz),
		Channels:          uint32(s.Channels),
		BitrateBps:        uint64(s.BitrateBPS),
		StartTime:         durationToProto(s.StartTime),
		Duration:          durationToProto(s.Duration),
		FrameCount:        uint64(s.FrameCount),
		Language:          s.Language,
		Default:           s.Default,
		Keyframes:         keyframesToProto(s.Keyframes),
		Untrimmed:         s.Untrimmed,
		Steady:            s.Steady,
		Damaged:           s.Damaged,
	}
}

func keyframesToProto(k *media.KeyframeTable) *tcoderv1.KeyframeTable {
	if k == nil {
		return nil
	}

	return &tcoderv1.KeyframeTable{
		Frames:     mapSlice(k.Frames, frameToProto),
		Ticks:      mapSlice(k.Ticks, frameToProto),
		Timescale:  uint32(k.Timescale),
		FrameCount: uint64(k.FrameCount),
		FrameRate:  rationalToProto(k.FrameRate),
		LeadTicks:  uint64(k.LeadTicks),
	}
}

func keyframesFromProto(k *tcoderv1.KeyframeTable) *media.KeyframeTable {
	if k == nil {
		return nil
	}

	return &media.KeyframeTable{
		Frames:     mapSlice(k.GetFrames(), sizeFromProto),
		Ticks:      mapSlice(k.GetTicks(), sizeFromProto),
		Timescale:  int64(k.GetTimescale()),
		FrameCount: sizeFromProto(k.GetFrameCount()),
		FrameRate:  rationalFromProto(k.GetFrameRate()),
		LeadTicks:  sizeFromProto(k.GetLeadTicks()),
	}
}

func streamFromProto(s *tcoderv1.StreamInfo) media.Stream {
	kind := lowerFromProto[media.StreamKind](tcoderv1.StreamKind_name, prefixStreamKind, s.GetKind())
	if kind == "" {
		kind = media.StreamOther
	}

	return media.Stream{
		Index:             int(s.GetIndex()),
		Kind:              kind,
		Codec:             word(s.GetCodec()),
		Profile:           word(s.GetProfile()),
		Level:             int(s.GetLevel()),
		Width:             int(s.GetWidth()),
		Height:            int(s.GetHeight()),
		RotationDegrees:   int(s.GetRotationDegrees()),
		SampleAspectRatio: rationalFromProto(s.GetSampleAspectRatio()),
		FrameRate:         rationalFromProto(s.GetFrameRate()),
		NominalFrameRate:  rationalFromProto(s.GetNominalFrameRate()),
		PixelFormat:       word(s.GetPixelFormat()),
		ColorTransfer:     word(s.GetColorTransfer()),
		ColorPrimaries:    word(s.GetColorPrimaries()),
		ColorSpace:        word(s.GetColorSpace()),
		FieldOrder:        word(s.GetFieldOrder()),
		HasBFrames:        s.GetHasBFrames(),
		SampleRateHz:      int(s.GetSampleRateHz()),
		Channels:          int(s.GetChannels()),
		BitrateBPS:        sizeFromProto(s.GetBitrateBps()),
		StartTime:         s.GetStartTime().AsDuration(),
		Duration:          s.GetDuration().AsDuration(),
		FrameCount:        sizeFromProto(s.GetFrameCount()),
		Language:          word(s.GetLanguage()),
		Default:           s.GetDefault(),
		Keyframes:         keyframesFromProto(s.GetKeyframes()),
		Untrimmed:         s.GetUntrimmed(),
		Steady:            s.GetSteady(),
		Damaged:           s.GetDamaged(),
	}
}
