package media

import (
	"fmt"
	"slices"
	"time"
)

// intermediateSuffix makes the name of an intermediate output. No name that a
// spec may give has a dot.
const intermediateSuffix = ".parts"

// planFiles lets the files of MP4 outputs be put together of the segments of
// HLS renditions that are made anyway: nothing is encoded twice. Where there are
// none and the source is long, an intermediate output makes them, by many
// workers at a time.
func planFiles(plan *Plan, p Probe, s Spec, audio Stream, slots int) {
	for i := range plan.Outputs {
		o := &plan.Outputs[i]
		if o.Kind != KindMP4 || o.Video == nil {
			continue
		}
		parts := *o
		parts.Name, parts.Kind, parts.Intermediate = o.Name+intermediateSuffix, KindHLS, true
		parts.Video = o.Video.of(func(r RenditionPlan) bool { return !r.Copy && rungOf(plan.Outputs, r) == "" })
		parts.SegmentSeconds = segmentSeconds(o.Video, s)
		if parts.Video != nil {
			parts.Chunks = chunks(p, parts, slots)
		}
		if len(parts.Chunks) > 0 {
			if o.Audio != nil { // what is copied into segments has to meet more conditions
				a := planAudio(p, audio, OutputSpec{Kind: KindHLS, Copy: copyOf(s, o.Name)}, s.Audio)
				parts.Audio = &a
			}
			plan.Outputs = append(plan.Outputs, parts)
			o = &plan.Outputs[i]
		}
		for _, r := range o.Video.Renditions {
			if from := rungOf(plan.Outputs, r); from != "" && !r.Copy {
				o.Assembled = append(o.Assembled, Assembly{Rendition: r.Name, From: from})
			}
		}
	}
}

// rungOf is the HLS output that encodes a rendition, empty if none does. All
// outputs of a spec have the same settings, so a name and a size tell.
func rungOf(outputs []OutputPlan, r RenditionPlan) string {
	at := slices.IndexFunc(outputs, func(o OutputPlan) bool {
		return o.Kind == KindHLS && o.Video != nil && slices.Contains(o.Video.Renditions, r)
	})
	if at < 0 {
		return ""
	}

	return outputs[at].Name
}

func copyOf(s Spec, output string) CopyPolicy {
	at := slices.IndexFunc(s.Outputs, func(o OutputSpec) bool { return o.Name == output })

	return s.Outputs[at].Copy
}

// file is the share of an output with assembled files: one of them, or with
// part 0 the files that are made of the source.
func (o OutputPlan) file(part int) (OutputPlan, bool) {
	assembled := func(r RenditionPlan) bool {
		return slices.ContainsFunc(o.Assembled, func(a Assembly) bool { return a.Rendition == r.Name })
	}
	if part == 0 {
		o.Video, o.Assembled = o.Video.of(func(r RenditionPlan) bool { return !assembled(r) }), nil
	} else {
		o.Assembled = o.Assembled[part-1 : part]
		o.Video = o.Video.of(assembled)
	}

	return o, o.Video != nil
}

// Files names the files of an MP4 output by their renditions: the sound has one
// of its own only where there is no picture.
func (o OutputPlan) Files() []string {
	if o.Kind != KindMP4 {
		return nil
	}
	if o.Video != nil {
		o.Audio = nil
	}

	return renditionNames(o)
}

// MadeBy names the renditions that a task makes of an output, and how much
// media time of each; nothing of tasks that make none.
func (p Plan) MadeBy(output string, part int) ([]string, time.Duration) {
	at := slices.IndexFunc(p.Outputs, func(o OutputPlan) bool { return o.Name == output })
	if at < 0 {
		return nil, 0
	}
	share, ok := p.Outputs[at].Share(part)
	switch {
	case !ok:
		return nil, 0
	case len(share.Chunks) > 0:
		return renditionNames(share), share.chunkDuration()
	default:
		return renditionNames(share), p.Duration
	}
}

// joins are the tasks that put files together, each after those that make its
// segments. tasks are the plan's others.
func joins(p Plan, tasks []TaskPlan) []TaskPlan {
	var more []TaskPlan
	for _, o := range p.Outputs {
		for i, a := range o.Assembled {
			share, _ := o.Share(i + 1)
			join := TaskPlan{Output: o.Name, Part: i + 1, Joins: true, Weight: weight(share, p.Duration)}
			at := slices.IndexFunc(p.Outputs, func(from OutputPlan) bool { return from.Name == a.From })
			from := p.Outputs[at]
			makers := partsOf(from, a.Rendition)
			if from.Audio != nil {
				makers = append(makers, partsOf(from, from.Audio.Name)...)
			}
			for before, task := range tasks {
				if task.Output == a.From && slices.Contains(makers, task.Part) {
					join.After = append(join.After, before)
				}
			}
			more = append(more, join)
		}
	}

	return more
}

// VerifyJoined checks a file that was put together of segments: VerifyResult
// has accepted it, and it has the picture of the segments, frame by frame.
func VerifyJoined(o OutputPlan, video Joined, r EncodeResult) error {
	made := r.Renditions[0].Result
	if made.FrameCount != video.Result.FrameCount {
		return fmt.Errorf("%d frames, its segments have %d", made.FrameCount, video.Result.FrameCount)
	}
	frame := time.Duration(float64(time.Second) / o.Video.FrameRate.Float())
	if video.Result.Duration-made.Duration > frame {
		return fmt.Errorf("it lasts %s, its segments %s", made.Duration, video.Result.Duration)
	}

	return nil
}
