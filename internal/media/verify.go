package media

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// VerifyResult checks what an attempt says it made of a part of an output
// against the plan, before it is committed: every rendition is there with its
// size and cadence, all renditions have the same frames, segments are cut where
// the plan says, a chunk and a copy have the frames that were planned, the
// durations add up to the source's, and no object is empty.
func VerifyResult(whole OutputPlan, part int, duration time.Duration, r EncodeResult) error {
	o, ok := whole.Share(part)
	if !ok {
		return fmt.Errorf("the output has no part %d", part)
	}
	names := map[string]EncodedRendition{}
	for _, e := range r.Renditions {
		names[e.Result.Name] = e
	}
	want := 0
	if o.Video != nil {
		want = len(o.Video.Renditions)
		if err := verifyPictures(o, names); err != nil {
			return err
		}
	}
	if o.Audio != nil && (o.Kind == KindHLS || o.Video == nil) {
		want++
		e, ok := names[o.Audio.Name]
		if !ok {
			return fmt.Errorf("rendition %s is missing", o.Audio.Name)
		}
		if err := verifyObjects(o, e); err != nil {
			return fmt.Errorf("rendition %s: %w", o.Audio.Name, err)
		}
	}
	if len(r.Renditions) != want {
		return fmt.Errorf("%d renditions, planned are %d", len(r.Renditions), want)
	}

	switch {
	case len(o.Chunks) > 0:
		return verifyChunk(o, o.Chunks[0].End == o.Video.ExpectedFrames, r)
	case len(whole.Chunks) > 0:
		return nil // sound may end before the picture does
	default:
		return verifyDuration(o, duration, r)
	}
}

// verifyPictures checks the renditions of a picture, each by itself and against the first.
func verifyPictures(o OutputPlan, names map[string]EncodedRendition) error {
	var first *EncodedRendition
	for _, plan := range o.Video.Renditions {
		e, ok := names[plan.Name]
		if !ok {
			return fmt.Errorf("rendition %s is missing", plan.Name)
		}
		if err := verifyVideo(o, plan, e); err != nil {
			return fmt.Errorf("rendition %s: %w", plan.Name, err)
		}
		if err := verifyObjects(o, e); err != nil {
			return fmt.Errorf("rendition %s: %w", plan.Name, err)
		}
		switch {
		case plan.Copy && o.Kind != KindHLS:
		case first == nil:
			first = &e
		default:
			if err := verifyAligned(*first, e); err != nil {
				return fmt.Errorf("rendition %s is not aligned with %s: %w", plan.Name, first.Result.Name, err)
			}
		}
	}

	return nil
}

// verifyChunk refuses a chunk that lacks frames. The source may end a little
// before its header says, so the last one may.
func verifyChunk(o OutputPlan, last bool, r EncodeResult) error {
	want := o.Chunks[0].End - o.Chunks[0].First
	got := r.Renditions[0].Result.FrameCount
	if last && got <= want {
		return verifyDuration(o, o.chunkDuration(), r)
	}
	if got != want {
		return fmt.Errorf("%d frames, the chunk has %d", got, want)
	}

	return nil
}

func verifyVideo(o OutputPlan, plan RenditionPlan, e EncodedRendition) error {
	v := o.Video
	if e.Result.Width != plan.Width || e.Result.Height != plan.Height {
		return fmt.Errorf("%d x %d pixels, planned are %d x %d", e.Result.Width, e.Result.Height, plan.Width, plan.Height)
	}
	if e.Result.FrameCount < 1 {
		return fmt.Errorf("no frames")
	}
	if err := verifySegments(o, e); err != nil {
		return err
	}
	if plan.Copy {
		if len(v.SegmentStarts) > 0 && e.Result.FrameCount != v.ExpectedFrames {
			return fmt.Errorf("%d frames, the source has %d", e.Result.FrameCount, v.ExpectedFrames)
		}

		return nil
	}
	if math.Abs(e.Result.FrameRate.Float()-v.FrameRate.Float()) > 0.01*v.FrameRate.Float() {
		return fmt.Errorf("%.6g frames per second, planned are %.6g", e.Result.FrameRate.Float(), v.FrameRate.Float())
	}

	return nil
}

func verifyObjects(o OutputPlan, e EncodedRendition) error {
	if e.Result.Codecs == "" {
		return fmt.Errorf("no codecs string")
	}
	if o.Kind != KindHLS {
		if e.File == nil || e.File.SizeBytes <= 0 {
			return fmt.Errorf("no file")
		}

		return nil
	}
	if e.InitSegment == nil || e.InitSegment.SizeBytes <= 0 {
		return fmt.Errorf("no init segment")
	}
	if len(e.Segments) == 0 {
		return fmt.Errorf("no segments")
	}
	var sum time.Duration
	for _, s := range e.Segments {
		if s.SizeBytes <= 0 || s.Duration <= 0 {
			return fmt.Errorf("segment %s is empty", s.Name)
		}
		sum += s.Duration
	}
	if off := (sum - e.Result.Duration).Abs(); off > time.Millisecond*time.Duration(1+len(e.Segments)) {
		return fmt.Errorf("segments last %s together, the rendition %s", sum, e.Result.Duration)
	}

	return nil
}

// cutSlack is by how much a segment may differ from the plan: timestamps of a
// source that is copied are rounded to a millisecond.
const cutSlack = 3 * time.Millisecond

// verifySegments compares the segments of a picture with where the plan cuts
// it, if it says where. The last one is as long as the source lasts.
func verifySegments(o OutputPlan, e EncodedRendition) error {
	v := o.Video
	if len(v.SegmentStarts) == 0 {
		return nil
	}
	first, end := 0, len(v.SegmentStarts)
	if len(o.Chunks) > 0 {
		first, end = v.cutsIn(o.Chunks[0])
	}
	if len(e.Segments) != end-first {
		return fmt.Errorf("%d segments, planned are %d", len(e.Segments), end-first)
	}
	for i, s := range e.Segments[:len(e.Segments)-1] {
		frames := v.segmentEnd(first+i) - v.SegmentStarts[first+i]
		want := time.Duration(float64(frames) / v.FrameRate.Float() * float64(time.Second))
		if (s.Duration - want).Abs() > cutSlack {
			return fmt.Errorf("segment %s lasts %s, planned are %s", s.Name, s.Duration, want)
		}
	}

	return nil
}

func verifyAligned(a, b EncodedRendition) error {
	if a.Result.FrameCount != b.Result.FrameCount {
		return fmt.Errorf("%d frames against %d", b.Result.FrameCount, a.Result.FrameCount)
	}
	if len(a.Segments) != len(b.Segments) {
		return fmt.Errorf("%d segments against %d", len(b.Segments), len(a.Segments))
	}
	for i := range a.Segments {
		if (a.Segments[i].Duration - b.Segments[i].Duration).Abs() > cutSlack {
			return fmt.Errorf("segment %d lasts %s against %s", i, b.Segments[i].Duration, a.Segments[i].Duration)
		}
	}

	return nil
}

// verifyDuration refuses a result that ends before the source does. A
// container's own duration is exact to a frame in most formats and an
// estimate in some, hence the slack of half a second or half a percent.
func verifyDuration(o OutputPlan, duration time.Duration, r EncodeResult) error {
	if duration <= 0 {
		return nil
	}
	var longest time.Duration
	for _, e := range r.Renditions {
		longest = max(longest, e.Result.Duration)
	}
	slack := max(500*time.Millisecond, duration/200)
	if o.Video != nil {
		slack += time.Duration(float64(time.Second) / o.Video.FrameRate.Float())
	}
	if duration-longest > slack {
		return fmt.Errorf("the result lasts %s, the source %s", longest.Round(time.Millisecond), duration.Round(time.Millisecond))
	}

	return nil
}

// VerifyUploaded checks what an attempt says it has uploaded of a part of an
// output, while it runs, against the plan: as far as it can be played, it has
// to be what the result will be.
func VerifyUploaded(whole OutputPlan, part int, u UploadedSegments) error {
	o, ok := whole.Share(part)
	if !ok || o.Kind != KindHLS {
		return fmt.Errorf("the output has no segments of part %d", part)
	}
	if u.Rendition.Codecs == "" {
		return fmt.Errorf("no codecs string")
	}
	if !slices.Contains(renditionNames(o), u.Rendition.Name) {
		return fmt.Errorf("it isn't planned")
	}
	if o.Audio == nil || u.Rendition.Name != o.Audio.Name {
		for _, r := range o.Video.Renditions {
			if r.Name == u.Rendition.Name && (r.Width != u.Rendition.Width || r.Height != u.Rendition.Height) {
				return fmt.Errorf("%d x %d pixels, planned are %d x %d", u.Rendition.Width, u.Rendition.Height, r.Width, r.Height)
			}
		}
	}
	longest := time.Duration(targetSeconds(whole, nil))*time.Second + time.Second/2
	for _, s := range u.Segments {
		if s.SizeBytes <= 0 || s.Duration <= 0 {
			return fmt.Errorf("segment %s is empty", s.Name)
		}
		if s.Duration >= longest {
			return fmt.Errorf("segment %s lasts %s", s.Name, s.Duration)
		}
	}

	return nil
}
