package media

import (
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// chunkSeconds is how long chunks are, about. Measured: from 12 s on, starting
	// an encoder anew costs neither bits nor quality; 4 s chunks cost 4 to 8 % of
	// CPU time.
	chunkSeconds = 12
	// minChunkedSeconds is from which duration on a source is taken apart.
	minChunkedSeconds = 30
)

// chunks takes an output's picture apart for many workers. The first segment
// comes first and alone, its smallest rendition before the others, so that a
// player can start soon; the other chunks are about chunkSeconds. None if one task does as well: a short source, a single slot,
// a copy. Nor where seeking isn't exact, for want of an index.
func chunks(p Probe, o OutputPlan, slots int) []Chunk {
	v := o.Video
	if slots < 2 || o.Kind != KindHLS || v == nil || v.ExpectedFrames == 0 || !indexed(p) ||
		slices.ContainsFunc(v.Renditions, func(r RenditionPlan) bool { return r.Copy }) ||
		float64(v.ExpectedFrames) < minChunkedSeconds*v.FrameRate.Float() {
		return nil
	}
	segment := segmentFrames(o)
	length := segment * max(1, int64(math.Round(chunkSeconds/o.SegmentSeconds)))
	list := firstChunks(v, segment)
	start := len(list)
	for first := segment; first < v.ExpectedFrames; first += length {
		list = append(list, Chunk{First: first, End: first + length})
	}
	last := len(list) - 1
	if left := v.ExpectedFrames - list[last].First; left < length/2 && last > start {
		list = list[:last] // too little for a task: the one before makes it too
	}
	list[len(list)-1].End = v.ExpectedFrames

	return list
}

// firstChunks are those of the first segment.
func firstChunks(v *VideoPlan, segment int64) []Chunk {
	var names []string
	for _, r := range v.Renditions {
		names = append(names, r.Name)
	}
	smallest := len(names) - 1
	if smallest == 0 {
		return []Chunk{{End: segment}}
	}

	return []Chunk{{End: segment, Renditions: names[smallest:]}, {End: segment, Renditions: names[:smallest]}}
}

// segmentFrames is the number of frames of a segment.
func segmentFrames(o OutputPlan) int64 {
	gop := float64(o.Video.GOPFrames)

	return int64(gop * math.Round(o.SegmentSeconds*o.Video.FrameRate.Float()/gop))
}

// chunkDuration is how long the chunk of a share lasts.
func (o OutputPlan) chunkDuration() time.Duration {
	frames := float64(o.Chunks[0].End - o.Chunks[0].First)

	return time.Duration(frames / o.Video.FrameRate.Float() * float64(time.Second))
}

// indexed reports whether a container says where its keyframes are.
func indexed(p Probe) bool {
	return slices.ContainsFunc(strings.Split(p.Format, ","), func(name string) bool {
		return name == "mov" || name == "matroska"
	})
}

// Share is what one task makes of an output: all of it, or of a chunked one
// the chunk of a part, from 1, or with part 0 the sound. False if the output
// has no such part.
func (o OutputPlan) Share(part int) (OutputPlan, bool) {
	switch {
	case part < 0 || part > len(o.Chunks):
		return OutputPlan{}, false
	case len(o.Chunks) == 0:
	case part == 0:
		o.Video, o.Chunks = nil, nil
	default:
		o.Audio, o.Chunks = nil, o.Chunks[part-1:part]
		if names := o.Chunks[0].Renditions; len(names) > 0 {
			video := *o.Video
			video.Renditions = slices.DeleteFunc(slices.Clone(video.Renditions), func(r RenditionPlan) bool {
				return !slices.Contains(names, r.Name)
			})
			o.Video = &video
		}
	}

	return o, o.Video != nil || o.Audio != nil
}
