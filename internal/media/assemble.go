package media

import (
	"slices"
	"time"
)

// Part is what one task made of an output. Parts follow each other in time.
type Part struct {
	Dir    string // the attempt's folder, below the output's
	Result EncodeResult
	// Committed returns what attempts of the task committed of a rendition before
	// it was done, nil if nothing; it keeps its places in the playlists. A nil
	// func: nothing of any.
	Committed func(rendition string) *Committed
}

// Manifest is a file that the control plane writes once the parts are committed.
type Manifest struct {
	Key         string
	ContentType string
	Body        []byte
}

// Assemble makes an output of its parts, which VerifyResult has accepted:
// what is published, and the manifests to write, the one to open last. prefix
// is OutputPrefix, run the job's. It is pure, so writing the manifests twice is
// harmless.
func Assemble(o OutputPlan, parts []Part, prefix string, run int) (Output, []Manifest) {
	out := Output{Name: o.Name, Kind: o.Kind}
	var manifests []Manifest
	if len(parts) == 0 {
		return out, nil
	}
	if o.Kind == KindHLS {
		manifests = assembleHLS(&out, o, parts, prefix, run)
	} else {
		assembleFiles(&out, o, parts, prefix)
	}
	for _, object := range out.Objects {
		out.SizeBytes += object.SizeBytes
	}
	for _, r := range out.Renditions {
		out.Duration = max(out.Duration, r.Duration)
	}

	return out, manifests
}

func assembleFiles(out *Output, o OutputPlan, parts []Part, prefix string) {
	made := map[string]OutputObject{}
	results := map[string]RenditionResult{}
	for _, part := range parts {
		for _, r := range part.Result.Renditions {
			results[r.Result.Name] = r.Result
			made[r.Result.Name] = OutputObject{
				Name: r.File.Name, Key: prefix + part.Dir + "/" + r.File.Name,
				SizeBytes: r.File.SizeBytes, ContentType: r.File.ContentType,
			}
		}
	}
	for _, name := range renditionNames(o) {
		if object, ok := made[name]; ok { // the sound is in the files of the picture
			out.Renditions = append(out.Renditions, results[name])
			out.Objects = append(out.Objects, object)
		}
	}
	out.Entry = out.Objects[0].Name
}

// track is one rendition over all parts.
type track struct {
	result   RenditionResult
	initURI  string
	segments []segment
	encoded  []EncodedObject
	placed   []Placed // the init segment and the segments, of a track that grows
}

func assembleHLS(out *Output, o OutputPlan, parts []Part, prefix string, run int) []Manifest {
	var tracks []track
	target := 1
	for _, name := range renditionNames(o) {
		t := joinTrack(out, name, parts, prefix)
		target = max(target, targetSeconds(o, t.segments))
		tracks = append(tracks, t)
	}
	var manifests []Manifest
	write := func(name string, body []byte) {
		manifests = append(manifests, Manifest{Key: prefix + name, ContentType: playlistType, Body: body})
		out.Objects = append(out.Objects, OutputObject{
			Name: name, Key: prefix + name, SizeBytes: int64(len(body)), ContentType: playlistType,
		})
	}
	var videos []variant
	var audio *variant
	for _, t := range tracks {
		t.result.PeakBitrateBPS = peakBitrate(t.encoded, target)
		out.Renditions = append(out.Renditions, t.result)
		v := variant{result: t.result, uri: t.result.Name + ".m3u8"}
		write(v.uri, mediaPlaylist(playlist{run: run, final: true, initURI: t.initURI, segments: t.segments, targetSeconds: target}))
		if o.Audio != nil && t.result.Name == o.Audio.Name {
			audio = &v
		} else {
			videos = append(videos, v)
		}
	}
	out.Entry = masterName
	write(out.Entry, masterPlaylist(o, run, true, videos, audio))

	return manifests
}

// masterName is what a player opens.
const masterName = "master.m3u8"

// MasterKey is the key of an HLS output's master playlist.
func MasterKey(project, jobID, output string) string {
	return OutputPrefix(project, jobID, output) + masterName
}

// ManifestKeys are the keys of all manifests of an output.
func ManifestKeys(project, jobID string, o OutputPlan) []string {
	if o.Kind != KindHLS || o.Intermediate {
		return nil
	}
	keys := []string{MasterKey(project, jobID, o.Name)}
	for _, name := range renditionNames(o) {
		keys = append(keys, OutputPrefix(project, jobID, o.Name)+name+".m3u8")
	}

	return keys
}

// renditionNames are the renditions of an output: the pictures, largest first,
// then the sound.
func renditionNames(o OutputPlan) []string {
	var names []string
	if o.Video != nil {
		for _, r := range o.Video.Renditions {
			names = append(names, r.Name)
		}
	}
	if o.Audio != nil {
		names = append(names, o.Audio.Name)
	}

	return names
}

// joinTrack lines up the segments of one rendition over all parts, and adds
// its objects to out.
func joinTrack(out *Output, name string, parts []Part, prefix string) track {
	joined := Join(name, parts)
	t := track{result: joined.Result}
	if len(joined.Segments) == 0 {
		return t
	}
	t.initURI = joined.Init.URI()
	for _, s := range joined.Segments {
		t.segments = append(t.segments, segment{uri: s.URI(), duration: s.Duration})
		t.encoded = append(t.encoded, s.EncodedObject)
	}
	for _, placed := range joined.Objects() {
		out.Objects = append(out.Objects, placed.object(prefix))
	}

	return t
}

// Joined is one rendition of an HLS output over all parts.
type Joined struct {
	Result   RenditionResult // its size and its frames are those of all segments
	Init     Placed
	Segments []Placed // none if no part has the rendition
}

// Join lines up the segments of one rendition over all parts of its output.
// Every part's init segment is the same; the first serves.
func Join(name string, parts []Part) Joined {
	var j Joined
	for _, part := range parts {
		at := slices.IndexFunc(part.Result.Renditions, func(r EncodedRendition) bool { return r.Result.Name == name })
		if at < 0 {
			continue
		}
		r := part.Result.Renditions[at]
		initial, segments := part.placed(r)
		if len(j.Segments) == 0 {
			j.Init, j.Result = initial, r.Result
			j.Result.Duration, j.Result.SizeBytes, j.Result.FrameCount = 0, 0, 0
		}
		j.Result.FrameCount += r.Result.FrameCount
		for _, s := range segments {
			j.Result.Duration += s.Duration
			j.Result.SizeBytes += s.SizeBytes
		}
		j.Segments = append(j.Segments, segments...)
	}
	j.Result.AverageBitrateBPS = averageBitrate(j.Result.SizeBytes, j.Result.Duration.Round(time.Microsecond))

	return j
}

// Objects are the keys, below the output's folder, and sizes of what a file is
// put together of, in order.
func (j Joined) Objects() []Placed { return append([]Placed{j.Init}, j.Segments...) }

// placed are the objects of a rendition of a part: what was committed first,
// then what the accepted attempt made beyond it.
func (p Part) placed(r EncodedRendition) (initial Placed, segments []Placed) {
	initial = Placed{*r.InitSegment, p.Dir}
	if p.Committed != nil {
		if c := p.Committed(r.Result.Name); c != nil {
			initial, segments = c.Init, slices.Clone(c.Segments)
		}
	}
	for _, s := range r.Segments[min(len(segments), len(r.Segments)):] {
		segments = append(segments, Placed{s, p.Dir})
	}

	return initial, segments
}
