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
	// chunkSlack is by how many seconds a chunk may be longer or shorter.
	chunkSlack = 4
	// minChunkedSeconds is from which duration on a source is taken apart.
	minChunkedSeconds = 30
)

// chunks takes an HLS output's picture apart for many workers. Where it is
// published, the first segment comes first and alone, its smallest rendition
// before the others, so that a player can start soon; the other chunks are
// about chunkSeconds. None if one task does as well: a short source, a single
// slot, nothing to encode. Nor where seeking isn't exact, for want of an index.
func chunks(p Probe, o OutputPlan, slots int) []Chunk {
	v := o.Video
	if slots < 2 || v == nil || v.ExpectedFrames == 0 || !indexed(p) || v.encoded() == nil ||
		float64(v.ExpectedFrames) < minChunkedSeconds*v.FrameRate.Float() {
		return nil
	}
	edges := append(o.segmentStarts(), v.ExpectedFrames)
	keys := keyframesFor(p, *v)
	var list []Chunk
	at := 0
	if !o.Intermediate {
		list, at = firstChunks(v.encoded(), edges[1]), 1
	}
	start := len(list)
	for at+1 < len(edges) {
		first := edges[at]
		at = chunkEnd(edges, at, v.FrameRate.Float(), keys)
		key, _ := keys.before(first)
		list = append(list, Chunk{First: first, End: edges[at], Keyframe: key})
	}
	last := len(list) - 1
	if left := float64(v.ExpectedFrames-list[last].First) / v.FrameRate.Float(); left < chunkSeconds/2 && last > start {
		list = list[:last] // too little for a task: the one before makes it too
		list[last-1].End = v.ExpectedFrames
	}

	return list
}

// chunkEnd is the edge at which a chunk ends that begins at one: about
// chunkSeconds later, where it leaves enough for another chunk, or nothing, and
// where that has little to decode before its own pictures: a second of that
// weighs as much as eight by which a chunk is longer or shorter.
func chunkEnd(edges []int64, at int, rate float64, keys keyframes) int {
	const unfit = 1e6 // only where nothing fits
	last := edges[len(edges)-1]
	end, least := at+1, math.Inf(1)
	for n := at + 1; n < len(edges); n++ {
		off := math.Abs(float64(edges[n]-edges[at])/rate - chunkSeconds)
		cost := off / 8
		if rest := float64(last-edges[n]) / rate; off > chunkSlack || rest > 0 && rest < chunkSeconds-chunkSlack {
			cost += unfit * (1 + off)
		} else if key, ok := keys.before(edges[n]); ok && rest > 0 {
			cost += float64(edges[n])/rate - key.Seconds()
		}
		if cost > least && off > chunkSlack {
			break
		}
		if cost <= least {
			end, least = n, cost
		}
	}

	return end
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

// segmentStarts are the first frames of the segments of a whole output.
func (o OutputPlan) segmentStarts() []int64 {
	if len(o.Video.SegmentStarts) > 0 {
		return slices.Clone(o.Video.SegmentStarts)
	}
	var starts []int64
	for first := int64(0); first < o.Video.ExpectedFrames; first += segmentFrames(o) {
		starts = append(starts, first)
	}

	return starts
}

// copied and encoded are the parts of a plan that are made so; nil if there is
// none.
func (v *VideoPlan) copied() *VideoPlan { return v.of(func(r RenditionPlan) bool { return r.Copy }) }

func (v *VideoPlan) encoded() *VideoPlan { return v.of(func(r RenditionPlan) bool { return !r.Copy }) }

// of is the plan of some renditions; nil of none.
func (v *VideoPlan) of(which func(RenditionPlan) bool) *VideoPlan {
	if v == nil {
		return nil
	}
	part := *v
	part.Renditions = slices.DeleteFunc(slices.Clone(v.Renditions), func(r RenditionPlan) bool { return !which(r) })
	if len(part.Renditions) == 0 {
		return nil
	}

	return &part
}

// segmentFrames is the number of frames of a segment.
func segmentFrames(o OutputPlan) int64 {
	gop := float64(o.Video.GOPFrames)

	return int64(gop * math.Round(o.SegmentSeconds*o.Video.FrameRate.Float()/gop))
}

// chunkDuration is how long the chunk of a share lasts that has one.
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

// Share is what one task makes of an output: all of it; or of a chunked one the
// chunk of a part, from 1, or with part 0 what isn't cut into chunks: the sound,
// and what is copied; or of one with assembled files one of these, or with part
// 0 the others. False if the output has no such part.
func (o OutputPlan) Share(part int) (OutputPlan, bool) {
	switch {
	case part < 0 || part > max(len(o.Chunks), len(o.Assembled)):
		return OutputPlan{}, false
	case len(o.Assembled) > 0:
		return o.file(part)
	case len(o.Chunks) == 0:
	case part == 0:
		o.Video, o.Chunks = o.Video.copied(), nil
	default:
		names := o.Chunks[part-1].Renditions
		o.Video, o.Audio, o.Chunks = o.Video.of(func(r RenditionPlan) bool {
			return !r.Copy && (len(names) == 0 || slices.Contains(names, r.Name))
		}), nil, o.Chunks[part-1:part]
	}

	return o, o.Video != nil || o.Audio != nil
}
