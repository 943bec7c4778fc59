package ffmpeg

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// edges is where the first and the last pictures and sounds of an MP4 are, by
// its index.
type edges struct {
	// packets is how many are read from the start, and from the tail: they hold
	// as many pictures and sounds as an edge has.
	packets int
	// stream is the one that has the tail.
	stream uint32
	// tail is when its last keyframe before the last second is shown, and end when
	// the stream ends, on the container's clock; 0: unknown.
	tail, end time.Duration
	// pictures is how many there are from the tail on.
	pictures int
}

// edges tells where the edges are, if that is worth a look.
func (m movie) edges() (from edges, ok bool) {
	const mostTracks, mostPackets = 8, 160

	if len(m.tracks) > mostTracks {
		return edges{}, false
	}

	all := uint64(0)
	for _, t := range m.tracks {
		all += t.frames
	}

	packets := uint64(0)

	for i, t := range m.tracks {
		if t.frames == 0 {
			continue
		}

		switch t.handler {
		case "vide":
			packets = max(packets, all*min(t.frames, headPictures)/t.frames)

			if from.tail == 0 {
				from.stream = uint32(i)
				from.tail, from.end, from.pictures = t.tail(m.timescale)
			}
		case "soun":
			packets = max(packets, all*min(t.frames, headSounds)/t.frames)
		}
	}

	from.packets = int(min(packets, mostPackets))

	return from, 0 < packets && packets <= mostPackets
}

// tail is as in edges.
func (t *indexTrack) tail(movieScale uint64) (at, end time.Duration, pictures int) {
	keys, ok := t.syncPlaces()
	if !ok {
		return 0, 0, 0
	}

	end, ok = t.end(movieScale)

	start, long := tailStart(end)
	if !ok || !long {
		return 0, 0, 0
	}

	from, _, _ := t.shown(movieScale)
	shown, _ := t.timesShown()
	when := func(key uint64) time.Duration {
		seconds := float64(shown[key]-from) / float64(t.timescale)

		return time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	}

	last := sort.Search(len(keys), func(i int) bool { return when(keys[i]) > start }) - 1
	if last < 0 {
		return 0, 0, 0
	}

	return when(keys[last]), end, int(t.frames - keys[last])
}

// rounding is more than times are off that were rounded, and less than a
// picture lasts.
const rounding = time.Millisecond

// args ask ffprobe to decode the edges beside what it tells of a source.
func (e edges) args() []string {
	intervals := fmt.Sprintf("%%+#%d", e.packets)
	if e.tail > 0 {
		intervals += fmt.Sprintf(",%s%%+#%d", seconds(e.tail+rounding), e.packets)
	}

	return []string{"-read_intervals", intervals, "-show_entries", headerEntries + ":frame=stream_index,best_effort_timestamp_time"}
}

// glance is what ffprobe decoded of edges.
type glance struct {
	Frames []glanceFrame `json:"frames"`
	asked  edges
	// complained is true if the log has an error, or may have had one.
	complained bool
}

type glanceFrame struct {
	Stream uint32 `json:"stream_index"`
	At     string `json:"best_effort_timestamp_time"`
}

// shows reports whether a piece can be decoded beyond doubt. ffprobe doesn't
// complain of every packet that a decoder refuses, so it takes many frames.
func (g glance) shows(one piece) bool {
	const enoughPictures, enoughSounds = 8, 16

	enough := uint64(enoughPictures)
	if one.stream.GetKind() == tcoderv1.StreamKind_STREAM_KIND_AUDIO {
		enough = enoughSounds
	}

	if one.tail {
		enough = min(enough, uint64(g.asked.pictures))
	} else if n := one.stream.GetFrameCount(); n > 0 {
		enough = min(enough, n)
	}

	if g.complained || one.tail && (g.asked.tail == 0 || g.asked.stream != one.stream.GetIndex()) {
		return false
	}

	seen := uint64(0)

	for _, f := range g.Frames {
		if at, ok := parseSeconds(f.At); ok && f.Stream == one.stream.GetIndex() && g.isOf(one, at) {
			seen++
		}
	}

	return seen >= enough
}

// isOf reports whether what is shown then belongs to a piece. A look at the tail
// begins with sound, and maybe with pictures, from before: they are neither.
func (g glance) isOf(one piece, at time.Duration) bool {
	if one.tail {
		return at >= g.asked.tail-rounding
	}

	return g.asked.tail == 0 || at < g.asked.tail/2
}

// show reports whether all pieces can be decoded beyond doubt.
func (g glance) show(pieces ...piece) bool {
	return !slices.ContainsFunc(pieces, func(one piece) bool { return !g.shows(one) })
}
