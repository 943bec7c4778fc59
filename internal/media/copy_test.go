package media_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// fitting is a source of an hour that the largest rendition of HLS may be: a
// keyframe every gop frames.
func fitting(gop int64) media.Probe {
	p := camera()
	rate := media.Rational{Num: 24000, Den: 1001}
	table := &media.KeyframeTable{Timescale: 24000, FrameCount: 86_313, FrameRate: rate}
	for at := int64(0); at < table.FrameCount; at += gop {
		table.Frames, table.Ticks = append(table.Frames, at), append(table.Ticks, 1001*at)
	}
	p.Duration = time.Duration(float64(table.FrameCount) / rate.Float() * float64(time.Second))
	v, a := &p.Streams[0], &p.Streams[1]
	v.Keyframes, v.BitrateBPS, v.Duration, v.FrameCount = table, 4_000_000, p.Duration, table.FrameCount
	a.Untrimmed, a.BitrateBPS, a.Duration = true, 128_000, p.Duration

	return p
}

func copied(o media.OutputPlan) map[string]bool {
	got := map[string]bool{}
	for _, r := range o.Video.Renditions {
		got[r.Name] = r.Copy
	}

	return got
}

// A fitting source guarantees to be the largest rendition of an adaptive
// stream as it is, and whatever would not play or not line up to be encoded.
func TestCopyTop(t *testing.T) {
	t.Parallel()
	all := map[string]bool{"1080p": true, "720p": false, "480p": false, "360p": false}
	none := map[string]bool{"1080p": false, "720p": false, "480p": false, "360p": false}
	for name, c := range map[string]struct {
		change func(*media.Probe)
		want   map[string]bool
	}{
		"fits":            {func(*media.Probe) {}, all},
		"few keyframes":   {func(p *media.Probe) { k := p.Streams[0].Keyframes; k.Frames, k.Ticks = k.Frames[:100], k.Ticks[:100] }, none},
		"unknown":         {func(p *media.Probe) { p.Streams[0].Keyframes = nil }, none},
		"another cadence": {func(p *media.Probe) { p.Streams[0].Keyframes.FrameRate = media.Rational{Num: 2398, Den: 100} }, none},
		"level 5":         {func(p *media.Probe) { p.Streams[0].Level = 50 }, none},
		"too many bits":   {func(p *media.Probe) { p.Streams[0].BitrateBPS = 5_100_000 }, none},
		"bits of the whole": {func(p *media.Probe) {
			p.Streams[0].BitrateBPS, p.BitrateBPS = 0, 5_100_000
		}, none},
		"late":    {func(p *media.Probe) { p.Streams[0].StartTime = 40 * time.Millisecond }, none},
		"10 bit":  {func(p *media.Probe) { p.Streams[0].PixelFormat = "yuv420p10le" }, none},
		"too big": {func(p *media.Probe) { p.Streams[0].Width, p.Streams[0].Height = 2048, 1152 }, none},
		"wide":    {func(p *media.Probe) { p.Streams[0].Height, p.Streams[0].BitrateBPS = 800, 3_000_000 }, map[string]bool{"800p": true, "480p": false, "360p": false}},
		"in between": {func(p *media.Probe) { p.Streams[0].Width, p.Streams[0].Height = 1706, 960 }, map[string]bool{
			"960p": true, "720p": false, "480p": false, "360p": false,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := fitting(48)
			c.change(&p)
			o := plan(t, p, media.Spec{Preset: "hls-adaptive"}).Outputs[0]
			require.Equal(t, c.want, copied(o))
			require.Equal(t, o.Video.Renditions[0].Copy, len(o.Video.SegmentStarts) > 0)
			require.True(t, o.Audio.Copy)
		})
	}
	never := plan(t, fitting(48), media.Spec{Preset: "hls-adaptive", Copy: media.CopyNever}).Outputs[0]
	require.Equal(t, none, copied(never))
	require.False(t, never.Audio.Copy)
}

// Sound in HLS guarantees to be encoded where its copy would not begin with the picture.
func TestCopySoundIntoHLS(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*media.Stream){
		"trimmed":       func(s *media.Stream) { s.Untrimmed = false },
		"late":          func(s *media.Stream) { s.StartTime = 20 * time.Millisecond },
		"too many bits": func(s *media.Stream) { s.BitrateBPS = 320_000 },
		"surround":      func(s *media.Stream) { s.Channels = 6 },
	} {
		p := fitting(48)
		change(&p.Streams[1])
		o := plan(t, p, media.Spec{Preset: "hls"}).Outputs[0]
		require.False(t, o.Audio.Copy, name)
		require.True(t, o.Video.Renditions[0].Copy, name)
	}
}

// Wherever a source has its keyframes, the segments of a plan guarantee to
// begin at some of them, to be those that FFmpeg cuts also where timestamps are
// rounded to a millisecond, and to be near the length that was asked for.
func TestCutsAreFFmpegs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		p := fitting(48)
		table := p.Streams[0].Keyframes
		table.Frames, table.Ticks, table.Timescale = table.Frames[:1], table.Ticks[:1], 1000
		for at := int64(0); ; {
			at += rapid.Int64Range(1, 143).Draw(r, "gop")
			if at >= table.FrameCount || len(table.Frames) > 400 {
				break
			}
			table.Frames = append(table.Frames, at)
			table.Ticks = append(table.Ticks, at*1001/24+rapid.Int64Range(0, 1).Draw(r, "rounding"))
		}
		lastGOP := rapid.Int64Range(1, 143).Draw(r, "last gop")
		table.FrameCount = table.Frames[len(table.Frames)-1] + lastGOP
		resolved, err := media.Resolve(media.Spec{Preset: "hls-adaptive"})
		require.NoError(r, err)
		made, err := media.MakePlan(p, resolved, media.Limits{}, 1)
		require.NoError(r, err)
		o := made.Outputs[0]
		if !o.Video.Renditions[0].Copy {
			require.LessOrEqual(r, lastGOP, int64(2), "it may lack a good last segment")

			return
		}
		var starts []int64
		for i, frame := range table.Frames {
			if i == 0 || float64(table.Ticks[i])/1000 >= o.SegmentSeconds*float64(len(starts))-1e-7 {
				starts = append(starts, frame)
			}
		}
		require.Equal(r, starts, o.Video.SegmentStarts)
		for i := 1; i < len(starts); i++ {
			require.LessOrEqual(r, starts[i]-starts[i-1], int64(o.Video.GOPFrames))
			require.Less(r, float64(starts[i]-starts[i-1])/table.FrameRate.Float(), 6+6.1)
		}
		last := float64(table.FrameCount-starts[len(starts)-1]) / table.FrameRate.Float()
		require.True(r, len(starts) == 1 || last > 0.1, "players make nothing of so short a segment")
	})
}

// A chunked output with a copy guarantees that the copy and the sound are one
// task, the rest chunks that begin where the copy is cut, and that what each
// makes is held to those cuts.
func TestChunksOfACopiedLadder(t *testing.T) {
	t.Parallel()
	resolved, err := media.Resolve(media.Spec{Preset: "hls-adaptive"})
	require.NoError(t, err)
	made, err := media.MakePlan(fitting(60), resolved, media.Limits{}, 8)
	require.NoError(t, err)
	o := made.Outputs[0]
	require.Greater(t, len(o.Chunks), 200)
	for i, c := range o.Chunks {
		require.Contains(t, o.Video.SegmentStarts, c.First)
		if i > 1 { // the first two are both the first segment's
			require.Equal(t, o.Chunks[i-1].End, c.First)
			require.InDelta(t, 12*24, float64(c.End-c.First), 4*24, "chunk %d", i)
		}
	}
	require.Equal(t, o.Video.SegmentStarts[1], o.Chunks[0].End)
	require.Equal(t, o.Video.ExpectedFrames, o.Chunks[len(o.Chunks)-1].End)

	rest, ok := o.Share(0)
	require.True(t, ok)
	require.NotNil(t, rest.Audio)
	require.Equal(t, map[string]bool{"1080p": true}, copied(rest))
	chunk, ok := o.Share(3)
	require.True(t, ok)
	require.Nil(t, chunk.Audio)
	require.Equal(t, map[string]bool{"720p": false, "480p": false, "360p": false}, copied(chunk))
	require.Len(t, o.Video.Renditions, 4, "sharing changes no plan")
	tasks := media.Tasks(made)
	require.Equal(t, []bool{false, false}, []bool{tasks[0].Audio, tasks[1].Audio})
	require.Equal(t, []int{1, 0, 2}, []int{tasks[0].Part, tasks[1].Part, tasks[2].Part})

	result := func(change func(*media.EncodedRendition)) media.EncodeResult {
		var r media.EncodeResult
		for _, rung := range chunk.Video.Renditions {
			e := encoded(rung.Name, rung.Width, rung.Height, 1000)
			e.Segments = nil
			e.Result.FrameCount, e.Result.Duration = 0, 0
			for i, first := range o.Video.SegmentStarts[:len(o.Video.SegmentStarts)-1] {
				if first < o.Chunks[2].First || first >= o.Chunks[2].End {
					continue
				}
				frames := o.Video.SegmentStarts[i+1] - first
				d := time.Duration(float64(frames) / o.Video.FrameRate.Float() * float64(time.Second))
				e.Segments = append(e.Segments, media.EncodedObject{Name: "s", SizeBytes: 1, Duration: d, ContentType: "video/iso.segment"})
				e.Result.FrameCount += frames
				e.Result.Duration += d
			}
			change(&e)
			r.Renditions = append(r.Renditions, e)
		}

		return r
	}
	require.NoError(t, media.VerifyResult(o, 3, made.Duration, result(func(*media.EncodedRendition) {})))
	require.ErrorContains(t, media.VerifyResult(o, 3, made.Duration, result(func(e *media.EncodedRendition) {
		shift(e.Segments)
	})), "planned are")
	require.ErrorContains(t, media.VerifyResult(o, 3, made.Duration, result(func(e *media.EncodedRendition) {
		e.Segments = append(e.Segments, e.Segments[0])
		e.Result.Duration += e.Segments[0].Duration
	})), "segments, planned are")
}

// A chunk beside a copy guarantees that its segments can be watched before it
// is done, though keyframes of the source make them longer than what was asked
// for.
func TestUploadedBesideACopy(t *testing.T) {
	t.Parallel()
	o := media.OutputPlan{
		Kind: media.KindHLS, SegmentSeconds: 4,
		Video: &media.VideoPlan{
			FrameRate: media.Rational{Num: 24, Den: 1}, GOPFrames: 144, ExpectedFrames: 960, SegmentStarts: []int64{0, 130, 240},
			Renditions: []media.RenditionPlan{{Name: "720p", Width: 1280, Height: 720, Copy: true}, {Name: "240p", Width: 426, Height: 240}},
		},
		Chunks: []media.Chunk{{End: 130}, {First: 130, End: 960}},
	}
	uploaded := func(d time.Duration) media.UploadedSegments {
		return media.UploadedSegments{
			Rendition: media.RenditionResult{Name: "240p", Width: 426, Height: 240, Codecs: "avc1.64001e"},
			Segments:  []media.EncodedObject{{Name: "s", SizeBytes: 1, Duration: d}},
		}
	}
	require.NoError(t, media.VerifyUploaded(o, 1, uploaded(130*time.Second/24)))
	require.ErrorContains(t, media.VerifyUploaded(o, 1, uploaded(11*time.Second)), "lasts 11s")
}

// Wherever a copied source has its keyframes, and in whichever order the
// segments of chunks are committed, a playlist guarantees to keep what it named
// before, and to name all in the end.
func TestGrowthOfACopiedLadder(t *testing.T) {
	t.Parallel()
	resolved, err := media.Resolve(media.Spec{Preset: "hls-adaptive"})
	require.NoError(t, err)
	rapid.Check(t, func(r *rapid.T) {
		p := fitting(48)
		table := p.Streams[0].Keyframes
		table.Frames, table.Ticks, table.Timescale, table.FrameCount = nil, nil, 24, 24*60
		for at := int64(0); at < table.FrameCount; at += rapid.Int64Range(1, 143).Draw(r, "gop") {
			table.Frames, table.Ticks = append(table.Frames, at), append(table.Ticks, at)
		}
		table.FrameCount = table.Frames[len(table.Frames)-1] + 24
		made, err := media.MakePlan(p, resolved, media.Limits{}, 8)
		require.NoError(r, err)
		o := made.Outputs[0]
		require.True(r, o.Video.Renditions[0].Copy)
		require.NotEmpty(r, o.Chunks)

		type commit struct {
			part, first int
			rendition   string
		}
		var ready []commit // the next of each rendition of each part
		left := map[commit]int{}
		for part, chunk := range o.Chunks {
			share, _ := o.Share(part + 1)
			for _, rung := range share.Video.Renditions {
				first := commit{part: part + 1, rendition: rung.Name}
				for _, start := range o.Video.SegmentStarts {
					if start >= chunk.First && start < chunk.End {
						left[first]++
					}
				}
				ready = append(ready, first)
			}
		}
		var growth media.Growth
		names := map[string][]string{}
		for _, rung := range o.Video.Renditions {
			names["p/"+rung.Name+".m3u8"] = []string{}
		}
		names["p/master.m3u8"] = []string{}
		for len(ready) > 0 {
			at := rapid.IntRange(0, len(ready)-1).Draw(r, "next")
			c := ready[at]
			growth.Add(o.Name, c.part, fmt.Sprint("t", c.part), media.UploadedSegments{
				First: c.first, Rendition: media.RenditionResult{Name: c.rendition}, Init: media.EncodedObject{Name: "init.mp4", SizeBytes: 1},
				Segments: []media.EncodedObject{{Name: fmt.Sprint(c.first), SizeBytes: 1, Duration: time.Second}},
			})
			ready[at].first++
			if ready[at].first == left[commit{part: c.part, rendition: c.rendition}] {
				ready = slices.Delete(ready, at, at+1)
			}
			for _, m := range growth.Grow(o, "p/", 1).Manifests {
				named := []string{}
				for line := range strings.Lines(string(m.Body)) {
					if !strings.HasPrefix(line, "#") && line != "\n" {
						named = append(named, line)
					}
				}
				require.Equal(r, names[m.Key], named[:min(len(named), len(names[m.Key]))], m.Key)
				names[m.Key] = named
			}
		}
		for _, rung := range o.Video.Renditions[1:] {
			require.Len(r, names["p/"+rung.Name+".m3u8"], len(o.Video.SegmentStarts))
		}
	})
}

// A rendition that is copied beside chunks grows as the task that copies it does.
func TestGrowthOfACopy(t *testing.T) {
	t.Parallel()
	o := media.OutputPlan{
		Name: "hls", Kind: media.KindHLS, SegmentSeconds: 4,
		Video: &media.VideoPlan{
			FrameRate: media.Rational{Num: 24, Den: 1}, GOPFrames: 96, ExpectedFrames: 960,
			Renditions: []media.RenditionPlan{{Name: "720p", Width: 1280, Height: 720, Copy: true}, {Name: "240p", Width: 426, Height: 240}},
		},
		Chunks: []media.Chunk{{End: 96}, {First: 96, End: 960}},
	}
	var growth media.Growth
	add := func(part int, name string) {
		growth.Add(o.Name, part, fmt.Sprint("t", part), media.UploadedSegments{
			Rendition: media.RenditionResult{Name: name, Width: 1280, Height: 720, Codecs: "avc1.64001f"},
			Init:      media.EncodedObject{Name: name + "/init.mp4", SizeBytes: 1},
			Segments:  []media.EncodedObject{{Name: name + "/00000.m4s", SizeBytes: 9, Duration: 4 * time.Second}},
		})
	}
	names := func() []string {
		var names []string
		for _, r := range growth.Grow(o, "p/", 1).Renditions {
			names = append(names, r.Name)
		}

		return names
	}
	add(1, "240p")
	require.Equal(t, []string{"240p"}, names())
	add(0, "720p")
	require.Equal(t, []string{"720p", "240p"}, names())
}
