package media

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"time"
)

// Placed is a committed object and the folder, below its output's, that it
// lies in.
type Placed struct {
	EncodedObject

	Dir string
}

// URI is its path below its output's folder.
func (p Placed) URI() string { return p.Dir + "/" + p.Name }

// object is it as a file of its output. prefix is OutputPrefix.
func (p Placed) object(prefix string) OutputObject {
	return OutputObject{Name: p.URI(), Key: prefix + p.URI(), SizeBytes: p.SizeBytes, ContentType: p.ContentType}
}

// Committed are the segments of one rendition that a task's attempts have
// committed before the task is done. Whichever attempt was the first at a
// position has it for good: what a player was told doesn't change.
type Committed struct {
	Rendition RenditionResult // name, codecs, and of a picture its size and cadence
	Init      Placed
	Segments  []Placed
}

// add takes in what one attempt committed; of what is there already nothing.
func (c *Committed) add(dir string, u UploadedSegments) {
	if len(c.Segments) == 0 {
		c.Rendition, c.Init = u.Rendition, Placed{u.Init, dir}
	}
	for i, s := range u.Segments {
		if u.First+i == len(c.Segments) {
			c.Segments = append(c.Segments, Placed{s, dir})
		}
	}
}

// Growth is what is committed of a run's HLS outputs. The zero value is empty.
type Growth struct {
	committed map[growing]*Committed
}

// growing names one rendition of one task.
type growing struct {
	output    string
	part      int
	rendition string
}

// Add takes in what an attempt committed of a part of an output, in the order
// in which the store took it. dir is AttemptDir.
func (g *Growth) Add(output string, part int, dir string, u UploadedSegments) {
	if g.committed == nil {
		g.committed = map[growing]*Committed{}
	}
	key := growing{output, part, u.Rendition.Name}
	if g.committed[key] == nil {
		g.committed[key] = &Committed{}
	}
	g.committed[key].add(dir, u)
}

// Committed returns what is committed of a task's rendition, nil if nothing is.
func (g *Growth) Committed(output string, part int, rendition string) *Committed {
	return g.committed[growing{output, part, rendition}]
}

// Continues checks that a result says of the segments that attempts have
// committed what they said: only then can those stay where they are.
func (g *Growth) Continues(output string, part int, r EncodeResult) error {
	for _, e := range r.Renditions {
		c := g.Committed(output, part, e.Result.Name)
		if c == nil {
			continue
		}
		if len(e.Segments) < len(c.Segments) {
			return fmt.Errorf("rendition %s has %d segments, %d are committed", e.Result.Name, len(e.Segments), len(c.Segments))
		}
		for i, s := range c.Segments {
			if e.Segments[i].Duration != s.Duration {
				return fmt.Errorf("segment %d of rendition %s lasts %s, the committed one %s",
					i, e.Result.Name, e.Segments[i].Duration, s.Duration)
			}
		}
	}

	return nil
}

// Grown is what can be published of a growing output.
type Grown struct {
	// Manifests to write: the playlists of the renditions that have begun, then
	// the master playlist, if a player can start.
	Manifests []Manifest
	// Playable says that a player can start: on the sound, and on a picture if
	// there is one.
	Playable bool
	// Renditions tell how far each is that has begun.
	Renditions []RenditionResult
	// Objects are the files that the manifests name, and these.
	Objects []OutputObject
}

// Grow makes the playlists of an output that grows: of each rendition what is
// committed from the start without a hole. prefix is OutputPrefix. It is pure.
func (g *Growth) Grow(o OutputPlan, prefix string, run int) Grown {
	var grown Grown
	if o.Kind != KindHLS || o.Intermediate {
		return grown
	}
	var videos []variant
	var audio *variant
	write := func(name string, body []byte) {
		grown.Manifests = append(grown.Manifests, Manifest{Key: prefix + name, ContentType: playlistType, Body: body})
		grown.Objects = append(grown.Objects, OutputObject{
			Name: name, Key: prefix + name, SizeBytes: int64(len(body)), ContentType: playlistType,
		})
	}
	for _, name := range renditionNames(o) {
		t, ok := g.track(o, name)
		if !ok {
			continue
		}
		for _, placed := range t.placed {
			grown.Objects = append(grown.Objects, placed.object(prefix))
		}
		v := variant{result: t.result, uri: name + ".m3u8"}
		v.result.PeakBitrateBPS = peakCap(o, name, t.encoded[0])
		write(v.uri, mediaPlaylist(playlist{
			run: run, initURI: t.initURI, segments: t.segments, targetSeconds: targetSeconds(o, nil),
		}))
		grown.Renditions = append(grown.Renditions, t.result)
		if o.Audio != nil && name == o.Audio.Name {
			audio = &v
		} else {
			videos = append(videos, v)
		}
	}
	if (o.Video != nil && len(videos) == 0) || (o.Audio != nil && audio == nil) {
		return grown
	}
	grown.Playable = true
	write(masterName, masterPlaylist(o, run, false, videos, audio))

	return grown
}

// peakCap is more than the bitrate that a rendition is planned to have at most,
// and than that of its first segment.
func peakCap(o OutputPlan, name string, first EncodedObject) int64 {
	const room = 1.1
	planned := 0
	if o.Video != nil {
		for _, r := range o.Video.Renditions {
			if r.Name == name {
				planned = r.VideoBitrateBPS
			}
		}
	}
	if o.Audio != nil && o.Audio.Name == name {
		planned = o.Audio.BitrateBPS
	}

	return int64(room * float64(max(int64(planned), averageBitrate(first.SizeBytes, first.Duration))))
}

// track lines up what is committed of one rendition over the parts of an
// output, up to the first hole; false if nothing is.
func (g *Growth) track(o OutputPlan, name string) (track, bool) {
	var t track
	for _, part := range partsOf(o, name) {
		c := g.Committed(o.Name, part, name)
		if c == nil {
			break
		}
		if len(t.segments) == 0 {
			t.result, t.initURI = c.Rendition, c.Init.URI()
			t.result.Duration, t.result.SizeBytes, t.result.FrameCount = 0, 0, 0
			t.result.AverageBitrateBPS = 0 // not known yet
			t.placed = append(t.placed, c.Init)
		}
		t.placed = append(t.placed, c.Segments...)
		for _, s := range c.Segments {
			t.segments = append(t.segments, segment{s.URI(), s.Duration})
			t.encoded = append(t.encoded, s.EncodedObject)
			t.result.Duration += s.Duration
			t.result.SizeBytes += s.SizeBytes
		}
		if len(c.Segments) < segmentsOf(o, part) {
			break
		}
	}

	return t, len(t.segments) > 0
}

// partsOf are the parts of an output that make a rendition, in playback order.
func partsOf(o OutputPlan, name string) []int {
	var parts []int
	for part := range len(o.Chunks) + 1 {
		if share, ok := o.Share(part); ok && slices.Contains(renditionNames(share), name) {
			parts = append(parts, part)
		}
	}

	return parts
}

// segmentsOf is how many segments a part has in each rendition; more than any
// has where nothing follows it.
func segmentsOf(o OutputPlan, part int) int {
	if part == 0 || o.Chunks[part-1].End == o.Video.ExpectedFrames {
		return math.MaxInt
	}
	c := o.Chunks[part-1]
	if len(o.Video.SegmentStarts) > 0 {
		first, end := o.Video.cutsIn(c)

		return end - first
	}
	frames := segmentFrames(o)

	return int((c.End - c.First + frames - 1) / frames)
}

// Supersedes reports whether a manifest may take the place of one that is
// there: it is of a later run, or of the same and final where that one isn't,
// or names more. So what was told stays, whoever writes late.
func (m Manifest) Supersedes(current []byte) bool {
	ours, theirs := orderOf(m.Body), orderOf(current)
	switch {
	case ours.run != theirs.run:
		return ours.run > theirs.run
	case ours.final != theirs.final:
		return ours.final
	default:
		return ours.names > theirs.names
	}
}

// order is where a manifest stands among those of its key.
type order struct {
	run   int
	final bool
	names int // segments or variants
}

// runComment begins the line by which a manifest tells its order.
const runComment = "## run "

func orderOf(body []byte) order {
	var o order
	for line := range bytes.Lines(body) {
		switch {
		case bytes.HasPrefix(line, []byte(runComment)):
			_, _ = fmt.Sscanf(string(line), runComment+"%d", &o.run) // 0 is before every run
			o.final = bytes.Contains(line, []byte(", final"))
		case bytes.HasPrefix(line, []byte("#EXTINF:")), bytes.HasPrefix(line, []byte("#EXT-X-STREAM-INF:")):
			o.names++
		}
	}

	return o
}

// targetSeconds is the target duration of an output's playlists, which must
// not change while they grow: no segment, rounded, is longer.
func targetSeconds(o OutputPlan, made []segment) int {
	target := max(1, int(math.Round(o.SegmentSeconds)))
	if o.Video != nil {
		for _, r := range o.Video.Renditions {
			if r.Copy { // cut at keyframes of the source, wherever they are
				target = max(target, int(math.Ceil(o.SegmentSeconds+copiedGOP.Seconds())))
			}
		}
	}
	for _, s := range made {
		target = max(target, int(math.Round(s.duration.Seconds())))
	}

	return target
}

// copiedGOP is the longest distance of keyframes in a copied rendition.
const copiedGOP = 6 * time.Second
