package mapper

import (
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
)

// PlanToProto returns the message of a plan.
func PlanToProto(p media.Plan) *tcoderv1.Plan {
	return &tcoderv1.Plan{
		Outputs:  mapSlice(p.Outputs, OutputPlanToProto),
		Duration: durationToProto(p.Duration),
		Notes:    p.Notes,
	}
}

// OutputPlanToProto returns the message of one output of a plan.
func OutputPlanToProto(o media.OutputPlan) *tcoderv1.OutputPlan {
	return &tcoderv1.OutputPlan{
		Name:           o.Name,
		Kind:           outputKindToProto(o.Kind),
		Video:          videoPlanToProto(o.Video),
		Audio:          audioPlanToProto(o.Audio),
		SegmentSeconds: o.SegmentSeconds,
		Chunks:         mapSlice(o.Chunks, chunkToProto),
		Intermediate:   o.Intermediate,
		Assembled: mapSlice(o.Assembled, func(a media.Assembly) *tcoderv1.Assembly {
			return &tcoderv1.Assembly{Rendition: a.Rendition, From: a.From}
		}),
	}
}

func chunkToProto(c media.Chunk) *tcoderv1.Chunk {
	return &tcoderv1.Chunk{
		FirstFrame:   uint64(c.First),
		EndFrame:     uint64(c.End),
		Renditions:   c.Renditions,
		KeyframeTime: durationToProto(c.Keyframe),
	}
}

func videoPlanToProto(v *media.VideoPlan) *tcoderv1.VideoPlan {
	if v == nil {
		return nil
	}

	return &tcoderv1.VideoPlan{
		StreamIndex:    uint32(v.StreamIndex),
		Codec:          videoCodecToProto(v.Codec),
		RateControl:    rateControlToProto(v.RateControl),
		Crf:            uint32(v.CRF),
		EncoderPreset:  v.EncoderPreset,
		FrameRate:      rationalToProto(v.FrameRate),
		GopFrames:      uint32(v.GOPFrames),
		Deinterlace:    v.Deinterlace,
		ToneMap:        v.ToneMap,
		Renditions:     mapSlice(v.Renditions, renditionPlanToProto),
		ExpectedFrames: uint64(v.ExpectedFrames),
		SegmentStarts:  mapSlice(v.SegmentStarts, frameToProto),
	}
}

func renditionPlanToProto(r media.RenditionPlan) *tcoderv1.RenditionPlan {
	return &tcoderv1.RenditionPlan{
		Name:            r.Name,
		Width:           uint32(r.Width),
		Height:          uint32(r.Height),
		VideoBitrateBps: uint32(r.VideoBitrateBPS),
		Copy:            r.Copy,
	}
}

func audioPlanToProto(a *media.AudioPlan) *tcoderv1.AudioPlan {
	if a == nil {
		return nil
	}

	return &tcoderv1.AudioPlan{
		Name:         a.Name,
		StreamIndex:  uint32(a.StreamIndex),
		Codec:        audioCodecToProto(a.Codec),
		BitrateBps:   uint32(a.BitrateBPS),
		Channels:     uint32(a.Channels),
		SampleRateHz: uint32(a.SampleRateHz),
		Copy:         a.Copy,
		Language:     a.Language,
	}
}

// LimitsToProto returns the message of the bounds on a source.
func LimitsToProto(l media.Limits) *tcoderv1.InputLimits {
	return &tcoderv1.InputLimits{
		MaxPixels:   uint64(l.MaxPixels),
		MaxDuration: durationToProto(l.MaxDuration),
		MaxFps:      l.MaxFPS,
		MaxStreams:  uint32(l.MaxStreams),
	}
}
