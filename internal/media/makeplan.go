package media

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// PlanError is why a source can't be planned. Reason is a pipeline reason of
// the INPUT kind: the input's fault, whichever worker tries.
type PlanError struct {
	Reason  string
	Message string
}

// Error tells the message.
func (e *PlanError) Error() string { return e.Message }

// TaskPlan is one task of a plan. OutputPlan.Share tells what it makes.
type TaskPlan struct {
	Output string
	Part   int     // as in OutputPlan.Share
	Audio  bool    // it makes the sound alone
	Joins  bool    // it puts a file together of segments
	Weight float64 // share of the job's progress: estimated seconds of one core
	After  []int   // the tasks that it waits for, by their places in the plan
}

// MakePlan decides what a source and a resolved spec come to, for a pool that
// can run slots tasks at a time. It is pure: the same input gives the same
// plan. The error is a *PlanError.
func MakePlan(p Probe, s Spec, l Limits, slots int) (Plan, error) {
	if err := checkLimits(p, l); err != nil {
		return Plan{}, err
	}
	video, hasVideo := pick(p.Streams, StreamVideo)
	audio, hasAudio := pick(p.Streams, StreamAudio)
	if s.Audio.Disabled != nil && *s.Audio.Disabled {
		audio, hasAudio = Stream{}, false
	}
	if !hasVideo && !hasAudio {
		return Plan{}, &PlanError{"INPUT_NO_USABLE_STREAM", "the source has neither a picture nor sound that this job can use"}
	}
	plan := Plan{Duration: planDuration(p, video, audio)}
	for _, spec := range s.Outputs {
		o := OutputPlan{Name: spec.Name, Kind: spec.Kind}
		if hasVideo {
			v, notes := planVideo(p, video, spec, s.Video)
			o.Video = &v
			plan.Notes = append(plan.Notes, notes...)
			if spec.Kind == KindHLS && spec.Copy == CopyWhenFitting && videoFits(p, video, s.Video) {
				copyTop(&o, p, video, s.HLS.SegmentSeconds, spec.Qualities)
			}
		}
		if hasAudio {
			a := planAudio(p, audio, spec, s.Audio)
			o.Audio = &a
		}
		if spec.Copy == CopyWhenFitting {
			plan.Notes = append(plan.Notes, damages(p, video, audio, spec.Kind, s)...)
		}
		if spec.Kind == KindHLS && o.SegmentSeconds == 0 {
			o.SegmentSeconds = segmentSeconds(o.Video, s)
		}
		if spec.Kind == KindHLS {
			o.Chunks = chunks(p, o, slots)
		}
		plan.Outputs = append(plan.Outputs, o)
	}
	planFiles(&plan, p, s, audio, slots)
	slices.Sort(plan.Notes)
	plan.Notes = slices.Compact(plan.Notes)

	return plan, nil
}

// Tasks returns the tasks of a plan, in playback order, then those that put
// files together of what the others made.
func Tasks(p Plan) []TaskPlan {
	var tasks []TaskPlan
	for _, o := range p.Outputs {
		if share, ok := o.Share(0); ok && len(o.Chunks) == 0 {
			tasks = append(tasks, TaskPlan{Output: o.Name, Weight: weight(share, p.Duration)})
		}
		for part := range o.Chunks {
			share, _ := o.Share(part + 1)
			tasks = append(tasks, TaskPlan{Output: o.Name, Part: part + 1, Weight: weight(share, share.chunkDuration())})
			// The sound is needed as soon as the first picture is.
			if rest, ok := o.Share(0); ok && part == 0 {
				tasks = append(tasks, TaskPlan{Output: o.Name, Audio: rest.Video == nil, Weight: weight(rest, p.Duration)})
			}
		}
	}

	return append(tasks, joins(p, tasks)...)
}

// Measured on one core: x264 veryfast encodes about 48 Mpixel/s of camera
// footage, AAC runs at 60 times real time, a copy at some hundred times.
const (
	encodePixelsPerSecond = 48e6
	audioSpeed            = 60
	copySpeed             = 300
)

func weight(o OutputPlan, duration time.Duration) float64 {
	perSecond := 1.0 / copySpeed
	if len(o.Assembled) > 0 {
		return perSecond * max(duration.Seconds(), 1)
	}
	if o.Video != nil {
		for _, r := range o.Video.Renditions {
			if !r.Copy {
				perSecond += float64(r.Width*r.Height) * o.Video.FrameRate.Float() / encodePixelsPerSecond
			}
		}
	}
	if o.Audio != nil && !o.Audio.Copy {
		perSecond += 1.0 / audioSpeed
	}

	return perSecond * max(duration.Seconds(), 1)
}

func checkLimits(p Probe, l Limits) error {
	exceeded := func(format string, args ...any) error {
		return &PlanError{"INPUT_LIMIT_EXCEEDED", fmt.Sprintf(format, args...)}
	}
	if l.MaxDuration > 0 && p.Duration > l.MaxDuration {
		return exceeded("the source lasts %s, the limit is %s", p.Duration.Round(time.Second), l.MaxDuration)
	}
	if l.MaxStreams > 0 && len(p.Streams) > l.MaxStreams {
		return exceeded("the source has %d streams, the limit is %d", len(p.Streams), l.MaxStreams)
	}
	for _, s := range p.Streams {
		if s.Kind != StreamVideo {
			continue
		}
		if pixels := int64(s.Width) * int64(s.Height); l.MaxPixels > 0 && pixels > l.MaxPixels {
			return exceeded("the source's picture has %d x %d pixels, the limit is %d pixels", s.Width, s.Height, l.MaxPixels)
		}
		if fps := s.FrameRate.Float(); l.MaxFPS > 0 && fps > l.MaxFPS {
			return exceeded("the source has %.6g frames per second, the limit is %.6g", fps, l.MaxFPS)
		}
	}

	return nil
}

// pick returns the stream of a kind that the container marks as default, or
// the first one. A video without a size can't be used.
func pick(streams []Stream, kind StreamKind) (Stream, bool) {
	usable := func(s Stream) bool {
		if kind == StreamVideo {
			return s.Kind == kind && s.Width > 0 && s.Height > 0
		}

		return s.Kind == kind && s.Channels > 0
	}
	at := slices.IndexFunc(streams, func(s Stream) bool { return usable(s) && s.Default })
	if at < 0 {
		at = slices.IndexFunc(streams, usable)
	}
	if at < 0 {
		return Stream{}, false
	}

	return streams[at], true
}

func planVideo(p Probe, v Stream, o OutputSpec, s VideoSettings) (VideoPlan, []string) {
	rate := outputRate(v, s.MaxFPS)
	source := uprightSize(v)
	renditions, notes := rungs(o, source, rate.Float())
	plan := VideoPlan{
		StreamIndex:   v.Index,
		Codec:         s.Codec,
		RateControl:   s.RateControl,
		CRF:           s.CRF,
		EncoderPreset: s.EncoderPreset,
		FrameRate:     rate,
		GOPFrames:     max(1, int(math.Round(s.GOPSeconds*rate.Float()))),
		Deinterlace:   interlaced(v),
		ToneMap:       v.ColorTransfer == "smpte2084" || v.ColorTransfer == "arib-std-b67",
		Renditions:    renditions,
	}
	if d := streamEnd(p, v); d > 0 {
		plan.ExpectedFrames = max(1, int64(math.Round(d.Seconds()*rate.Float())))
	}
	if o.Copy == CopyWhenFitting && o.Kind == KindMP4 && videoFits(p, v, s) {
		for i := range plan.Renditions {
			r := &plan.Renditions[i]
			r.Copy = r.Width == source.width && r.Height == source.height
		}
	}

	return plan, notes
}

// planDuration is the end of the last of the streams that are used, from the
// container's start: a longer one that isn't used doesn't count.
func planDuration(p Probe, used ...Stream) time.Duration {
	var end time.Duration
	for _, s := range used {
		if s.Kind != "" {
			end = max(end, streamEnd(p, s))
		}
	}

	return end
}

// streamEnd is how long a stream lasts from the container's start.
func streamEnd(p Probe, s Stream) time.Duration {
	if s.Duration <= 0 {
		return p.Duration
	}

	return s.Duration + max(0, s.StartTime-p.StartTime)
}

func interlaced(v Stream) bool {
	return v.FieldOrder != "" && v.FieldOrder != "progressive" && v.FieldOrder != "unknown"
}

// videoFits reports whether a stream plays on the web as it is.
func videoFits(p Probe, v Stream, s VideoSettings) bool {
	profiles := []string{"Constrained Baseline", "Baseline", "Main", "High"}
	containers := []string{"mov", "matroska", "mpegts", "flv"}
	steady := math.Abs(v.FrameRate.Float()-v.NominalFrameRate.Float()) <= 0.02*v.NominalFrameRate.Float()

	return v.Codec == "h264" && s.Codec == H264 && !v.Damaged &&
		slices.Contains(profiles, v.Profile) && v.Level <= 52 &&
		v.PixelFormat == "yuv420p" && !interlaced(v) && v.ColorTransfer != "smpte2084" && v.ColorTransfer != "arib-std-b67" &&
		v.RotationDegrees == 0 && (v.SampleAspectRatio.Den == 0 || v.SampleAspectRatio.Num == v.SampleAspectRatio.Den) &&
		v.Width%2 == 0 && v.Height%2 == 0 && min(v.Width, v.Height) <= maxShortSide &&
		steady && v.FrameRate.Float() <= s.MaxFPS*1.001 &&
		slices.ContainsFunc(containers, func(c string) bool { return slices.Contains(strings.Split(p.Format, ","), c) })
}

// damages are the streams that would be copied if they weren't damaged.
func damages(p Probe, video, audio Stream, kind OutputKind, s Spec) []string {
	var notes []string
	if video.Damaged {
		video.Damaged = false
		if videoFits(p, video, s.Video) {
			notes = append(notes, "the picture is encoded, not copied: its start or its end is damaged")
		}
	}
	if audio.Damaged {
		audio.Damaged = false
		if audioFits(p, audio, kind, s.Audio) {
			notes = append(notes, "the sound is encoded, not copied: its start is damaged")
		}
	}

	return notes
}

func planAudio(p Probe, a Stream, o OutputSpec, s AudioSettings) AudioPlan {
	plan := AudioPlan{
		Name:         "audio",
		StreamIndex:  a.Index,
		Codec:        s.Codec,
		BitrateBPS:   s.BitrateBPS,
		Channels:     min(a.Channels, 2),
		SampleRateHz: 48000,
		Language:     a.Language,
	}
	if a.Language == "und" {
		plan.Language = ""
	}
	if o.Copy == CopyWhenFitting && audioFits(p, a, o.Kind, s) {
		plan.Copy = true
		plan.SampleRateHz = a.SampleRateHz
	}

	return plan
}

// segmentSeconds is the multiple of the keyframe distance that is nearest to
// what was asked, so that every segment starts at a keyframe.
func segmentSeconds(v *VideoPlan, s Spec) float64 {
	if v == nil {
		return s.HLS.SegmentSeconds
	}
	gop := float64(v.GOPFrames) / v.FrameRate.Float()

	return gop * max(1, math.Round(s.HLS.SegmentSeconds/gop))
}
