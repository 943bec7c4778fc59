package media

import (
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	// maxCopyLevel is the highest level of H.264 that every device plays: 4.2.
	maxCopyLevel = 42
	// maxCopyGOP bounds how far apart the keyframes of a copied stream in HLS may
	// be: players change quality and seek at them.
	maxCopyGOP = 6 * time.Second
	// soonEnough is how late a copied stream may start.
	soonEnough = 5 * time.Millisecond
	// nearlyRung lets a copy take the place of a rung that is at least this much
	// of its size: two qualities that look the same serve nobody.
	nearlyRung = 0.8
)

// audioFits reports whether sound plays on the web as it is. HLS is cut into
// segments that all begin at 0: there the sound must do so, and nothing of it
// may be hidden.
func audioFits(p Probe, a Stream, kind OutputKind, s AudioSettings) bool {
	if s.Codec != AAC || a.Codec != "aac" || a.Damaged || a.Profile != "LC" || a.Channels > 2 || a.SampleRateHz > 48000 {
		return false
	}

	return kind == KindMP4 || a.Untrimmed && a.StartTime-p.StartTime <= soonEnough && a.BitrateBPS <= 2*int64(s.BitrateBPS)
}

// copyTop makes the source's own stream the largest rendition of an HLS output,
// if players can take it as it is and it can be cut into segments: nothing is
// encoded twice that is good already. The segments of all renditions then
// begin at keyframes of the source.
func copyTop(o *OutputPlan, p Probe, v Stream, segmentSeconds float64, qualities []string) {
	plan := *o.Video
	top := rendition("", uprightSize(v), plan.FrameRate.Float())
	if !cuttable(p, v, plan.FrameRate) || v.Level <= 0 || v.Level > maxCopyLevel || averageRate(p, v) > int64(top.VideoBitrateBPS) {
		return
	}
	renditions, ok := withCopy(plan.Renditions, top, qualities)
	if !ok {
		return
	}
	target, starts, ok := cuts(*v.Keyframes, segmentSeconds)
	if !ok {
		return
	}
	plan.Renditions, plan.SegmentStarts, plan.ExpectedFrames = renditions, starts, v.Keyframes.FrameCount
	plan.GOPFrames = 1
	for i := range starts {
		plan.GOPFrames = max(plan.GOPFrames, int(plan.segmentEnd(i)-starts[i]))
	}
	o.Video, o.SegmentSeconds = &plan, target
}

// cuttable reports whether a stream can be cut at its keyframes, often enough
// and in step with frames at a cadence.
func cuttable(p Probe, v Stream, rate Rational) bool {
	k := v.Keyframes
	if k == nil || len(k.Frames) == 0 || len(k.Ticks) != len(k.Frames) || k.Timescale <= 0 || k.Frames[0] != 0 || k.FrameRate.Float() <= 0 || (v.StartTime-p.StartTime).Abs() > soonEnough {
		return false
	}
	// Over all its length it stays within an eighth of a frame.
	if math.Abs(rate.Float()/k.FrameRate.Float()-1)*float64(k.FrameCount) > 1.0/8 {
		return false
	}

	return maxGOP(*k) <= maxCopyGOP
}

// maxGOP is the longest distance between keyframes.
func maxGOP(k KeyframeTable) time.Duration {
	var longest int64
	for i, first := range k.Frames {
		end := k.FrameCount
		if i+1 < len(k.Frames) {
			end = k.Frames[i+1]
		}
		longest = max(longest, end-first)
	}

	return time.Duration(float64(longest) / k.FrameRate.Float() * float64(time.Second))
}

// averageRate is a stream's bitrate, or what it is at most.
func averageRate(p Probe, v Stream) int64 {
	switch {
	case v.BitrateBPS > 0:
		return v.BitrateBPS
	case p.BitrateBPS > 0:
		return p.BitrateBPS
	default:
		return averageBitrate(p.SizeBytes, p.Duration)
	}
}

// withCopy puts the source's own rendition at the top of a ladder: in place of
// the rung of its size, or of one that is nearly so. A source that is larger
// than what was asked for isn't put in.
func withCopy(renditions []RenditionPlan, top RenditionPlan, qualities []string) ([]RenditionPlan, bool) {
	top.Copy = true
	short := min(top.Width, top.Height)
	largest := renditions[0]
	if largest.Width == top.Width && largest.Height == top.Height {
		top.Name = largest.Name

		return append([]RenditionPlan{top}, renditions[1:]...), true
	}
	asked := 0
	for _, q := range qualities {
		asked = max(asked, qualityPixels(q))
	}
	if short > asked || short < min(largest.Width, largest.Height) {
		return nil, false
	}
	top.Name = fmt.Sprintf("%dp", short)
	if float64(min(largest.Width, largest.Height)) >= nearlyRung*float64(short) {
		renditions = renditions[1:]
	}

	return append([]RenditionPlan{top}, renditions...), true
}

// earlier is by how much a cut is looked for before it is due: a keyframe whose
// time is rounded down is not missed.
const earlier = 2 * time.Millisecond

// shortSegment is how long a last segment may be that players make nothing of,
// and wait for without end.
const shortSegment = 100 * time.Millisecond

// cuts chooses the keyframes at which a stream is cut into segments of about a
// length: by half of it longer at most, where the last would be too short
// otherwise. False if it would be even so.
func cuts(k KeyframeTable, seconds float64) (target float64, starts []int64, ok bool) {
	const step = 50_000 // µs
	wanted := int64(math.Round(seconds * 1e6))
	for length := wanted - earlier.Microseconds(); length <= wanted*3/2; length += step {
		starts = cutsEvery(k, length)
		last := float64(k.FrameCount-starts[len(starts)-1]) / k.FrameRate.Float()
		if len(starts) == 1 || last > shortSegment.Seconds() {
			return float64(length) / 1e6, starts, true
		}
	}

	return 0, nil, false
}

// cutsEvery are the keyframes at which FFmpeg cuts for segments of a length: the
// n-th cut is at the first keyframe that is n times the length from the start,
// or later.
func cutsEvery(k KeyframeTable, microseconds int64) []int64 {
	var starts []int64
	for i, frame := range k.Frames {
		if i == 0 || k.Ticks[i]*1e6 >= microseconds*int64(len(starts))*k.Timescale {
			starts = append(starts, frame)
		}
	}

	return starts
}

// cutsIn are the positions of a chunk's segments among SegmentStarts: from first
// on, end isn't one of them.
func (v *VideoPlan) cutsIn(c Chunk) (first, end int) {
	first, _ = slices.BinarySearch(v.SegmentStarts, c.First)
	end, _ = slices.BinarySearch(v.SegmentStarts, c.End)

	return first, end
}

// segmentEnd is the frame after the last one of a segment that SegmentStarts
// tells of.
func (v *VideoPlan) segmentEnd(i int) int64 {
	if i+1 < len(v.SegmentStarts) {
		return v.SegmentStarts[i+1]
	}

	return v.ExpectedFrames
}
