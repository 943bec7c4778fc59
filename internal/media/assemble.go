package media

import (
	"slices"
	"time"
)

// Part is what one task made of an output. Parts follow each other in time.
type Part struct {
	Dir    string // the attempt's folder, below the output's
	Result EncodeResult
}

// Manifest is a file that the control plane writes once the parts are committed.
type Manifest struct {
	Key         string
	ContentType string
	Body        []byte
}

// Assemble makes an output of its parts, which VerifyResult has accepted:
// what is published, and the manifests to write, the one to open last. prefix
// is OutputPrefix. It is pure, so writing the manifests twice is harmless.
func Assemble(o OutputPlan, parts []Part, prefix string) (Output, []Manifest) {
	out := Output{Name: o.Name, Kind: o.Kind}
	var manifests []Manifest
	if len(parts) == 0 {
		return out, nil
	}
	if o.Kind == KindHLS {
		manifests = assembleHLS(&out, o, parts, prefix)
	} else {
		assembleFiles(&out, parts, prefix)
	}
	for _, object := range out.Objects {
		out.SizeBytes += object.SizeBytes
	}
	for _, r := range out.Renditions {
		out.Duration = max(out.Duration, r.Duration)
	}

	return out, manifests
}

func assembleFiles(out *Output, parts []Part, prefix string) {
	for _, part := range parts {
		for _, r := range part.Result.Renditions {
			out.Renditions = append(out.Renditions, r.Result)
			out.Objects = append(out.Objects, OutputObject{
				Name: r.File.Name, Key: prefix + part.Dir + "/" + r.File.Name,
				SizeBytes: r.File.SizeBytes, ContentType: r.File.ContentType,
			})
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
}

func assembleHLS(out *Output, o OutputPlan, parts []Part, prefix string) []Manifest {
	var tracks []track
	target := 1
	for _, name := range renditionNames(o) {
		t := joinTrack(out, name, parts, prefix)
		target = max(target, targetSeconds(t.segments))
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
		write(v.uri, mediaPlaylist(t.initURI, t.segments, target))
		if o.Audio != nil && t.result.Name == o.Audio.Name {
			audio = &v
		} else {
			videos = append(videos, v)
		}
	}
	var language string
	var channels int
	if o.Audio != nil {
		language, channels = o.Audio.Language, o.Audio.Channels
	}
	out.Entry = "master.m3u8"
	write(out.Entry, masterPlaylist(videos, audio, language, channels))

	return manifests
}

// renditionNames are the renditions of an HLS output: the pictures, largest
// first, then the sound.
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
// its objects to out. Every part's init segment is the same; the first serves.
func joinTrack(out *Output, name string, parts []Part, prefix string) track {
	var t track
	object := func(dir string, e EncodedObject) string {
		uri := dir + "/" + e.Name
		out.Objects = append(out.Objects, OutputObject{Name: uri, Key: prefix + uri, SizeBytes: e.SizeBytes, ContentType: e.ContentType})

		return uri
	}
	for _, part := range parts {
		at := slices.IndexFunc(part.Result.Renditions, func(r EncodedRendition) bool { return r.Result.Name == name })
		if at < 0 {
			continue
		}
		r := part.Result.Renditions[at]
		if t.initURI == "" {
			t.result = r.Result
			t.result.Duration, t.result.SizeBytes, t.result.FrameCount = 0, 0, 0
			t.initURI = object(part.Dir, *r.InitSegment)
		}
		t.result.FrameCount += r.Result.FrameCount
		for _, s := range r.Segments {
			t.result.Duration += s.Duration
			t.result.SizeBytes += s.SizeBytes
			t.segments = append(t.segments, segment{uri: object(part.Dir, s), duration: s.Duration})
			t.encoded = append(t.encoded, s)
		}
	}
	t.result.AverageBitrateBPS = averageBitrate(t.result.SizeBytes, t.result.Duration.Round(time.Microsecond))

	return t
}
