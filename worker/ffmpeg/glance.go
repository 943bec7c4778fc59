package ffmpeg

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// edges is where the first and the last pictures and sounds of an MP4 are, by
// its index.
type edges struct {
	packets int // of all streams, behind the start and behind the tail's, that are decoded
	// tail is when the keyframe is shown, on the container's clock, that the last
	// second begins behind; 0: it is unknown, or as near to the start.
	tail time.Duration
}

// edges tells where the edges are, if that is worth a look.
func (m movie) edges() (from edges, ok bool) {
	const most, packets = 8, 18 // tracks, and what is read of each

	if len(m.tracks) > most {
		return edges{}, false
	}

	from.packets = packets * len(m.tracks)

	for _, t := range m.tracks {
		if t.frames == 0 {
			continue
		}

		ok = ok || t.handler == "vide" || t.handler == "soun"

		if t.handler == "vide" && from.tail == 0 {
			from.tail = t.tail(m.timescale, uint64(from.packets))
		}
	}

	return from, ok
}

// tail is as in edges; it is not among the first so many samples.
func (t *indexTrack) tail(movieScale, behind uint64) time.Duration {
	end, isShown := t.end(movieScale)
	start, long := tailStart(end)
	keys, hasKeys := t.syncPlaces()

	if !isShown || !long || !hasKeys {
		return 0
	}

	from, _, _ := t.shown(movieScale)
	shown, _ := t.timesShown()
	at := func(key int) time.Duration {
		return time.Duration(float64(shown[keys[key]]-from) / float64(t.timescale) * float64(time.Second))
	}

	last := sort.Search(len(keys), func(i int) bool { return at(i) > start }) - 1
	if last < 0 || keys[last] < behind {
		return 0
	}

	return at(last)
}

// near is more than times are off that were rounded, and less than a picture
// lasts.
const near = time.Millisecond

// args ask ffprobe to decode the edges beside what it tells of a source; nil:
// not to.
func (e *edges) args() []string {
	if e == nil {
		return []string{"-show_entries", headerEntries}
	}

	intervals := fmt.Sprintf("%%+#%d", e.packets)
	if e.tail > 0 {
		intervals += fmt.Sprintf(",%s%%+#%d", seconds(e.tail+near), e.packets)
	}

	return []string{"-read_intervals", intervals, "-show_entries", headerEntries + ":frame=stream_index,best_effort_timestamp_time"}
}

// glance is what ffprobe decoded of edges.
type glance struct {
	Frames []glanceFrame `json:"frames"`
	from   edges
	// doubtful is true if something was complained of.
	doubtful bool
}

type glanceFrame struct {
	Stream uint32 `json:"stream_index"`
	At     string `json:"best_effort_timestamp_time"`
}

// shows reports whether pieces can be decoded beyond doubt.
func (g glance) shows(pieces ...piece) bool {
	return !g.doubtful && !slices.ContainsFunc(pieces, func(one piece) bool {
		return !slices.ContainsFunc(g.Frames, func(f glanceFrame) bool {
			return f.Stream == one.stream.GetIndex() && g.isTail(f) == one.tail
		})
	})
}

func (g glance) isTail(f glanceFrame) bool {
	at, ok := parseSeconds(f.At)

	return ok && g.from.tail > 0 && at >= g.from.tail-near
}
