package media_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
)

func camera() media.Probe {
	return media.Probe{
		Format:   "mov,mp4,m4a,3gp,3g2,mj2",
		Duration: 12500 * time.Millisecond,
		Streams: []media.Stream{
			{
				Index: 0, Kind: media.StreamVideo, Codec: "h264", Profile: "High", Level: 40, Width: 1920, Height: 1080,
				FrameRate: media.Rational{Num: 24000, Den: 1001}, NominalFrameRate: media.Rational{Num: 24000, Den: 1001},
				PixelFormat: "yuv420p", FieldOrder: "progressive",
			},
			{Index: 1, Kind: media.StreamAudio, Codec: "aac", Profile: "LC", Channels: 2, SampleRateHz: 44100, Language: "eng"},
		},
	}
}

func plan(t *testing.T, p media.Probe, s media.Spec) media.Plan {
	t.Helper()
	resolved, err := media.Resolve(s)
	require.NoError(t, err)
	got, err := media.MakePlan(p, resolved, media.Limits{}, 1)
	require.NoError(t, err)

	return got
}

func sizes(v *media.VideoPlan) map[string][2]int {
	got := map[string][2]int{}
	for _, r := range v.Renditions {
		got[r.Name] = [2]int{r.Width, r.Height}
	}

	return got
}

// The ladder guarantees the short side of each quality, even sides, and no
// upscaling, whatever the shape of the source.
func TestLadderSizes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*media.Stream)
		want   map[string][2]int
	}{
		"landscape": {func(*media.Stream) {}, map[string][2]int{"1080p": {1920, 1080}, "720p": {1280, 720}, "480p": {854, 480}, "360p": {640, 360}}},
		"rotated": {
			func(s *media.Stream) { s.RotationDegrees = 90 },
			map[string][2]int{"1080p": {1080, 1920}, "720p": {720, 1280}, "480p": {480, 854}, "360p": {360, 640}},
		},
		"720p": {func(s *media.Stream) { s.Width, s.Height = 1280, 720 }, map[string][2]int{"720p": {1280, 720}, "480p": {854, 480}, "360p": {640, 360}}},
		"odd":  {func(s *media.Stream) { s.Width, s.Height = 853, 479 }, map[string][2]int{"480p": {852, 478}, "360p": {642, 360}}},
		"tiny": {func(s *media.Stream) { s.Width, s.Height = 101, 57 }, map[string][2]int{"56p": {100, 56}}},
		"wide SAR": {func(s *media.Stream) {
			s.Width, s.Height, s.SampleAspectRatio = 720, 576, media.Rational{Num: 16, Den: 15}
		}, map[string][2]int{"480p": {640, 480}, "360p": {480, 360}}},
		"one pixel": {func(s *media.Stream) { s.Width, s.Height = 1, 1 }, map[string][2]int{"2p": {2, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := camera()
			c.change(&p.Streams[0])
			got := plan(t, p, media.Spec{Preset: "hls-adaptive"})
			require.Equal(t, c.want, sizes(got.Outputs[0].Video))
		})
	}
}

// Any source guarantees even sides, falling sizes and rising caps, and
// nothing larger than the source by more than a rounding.
func TestLadderProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		p := camera()
		s := &p.Streams[0]
		s.Width, s.Height = rapid.IntRange(2, 8192).Draw(r, "width"), rapid.IntRange(2, 8192).Draw(r, "height")
		s.RotationDegrees = rapid.SampledFrom([]int{0, 90, 180, 270}).Draw(r, "rotation")
		resolved, err := media.Resolve(media.Spec{Preset: "hls-adaptive", Qualities: media.Qualities()})
		require.NoError(r, err)
		got, err := media.MakePlan(p, resolved, media.Limits{}, 1)
		require.NoError(r, err)
		renditions := got.Outputs[0].Video.Renditions
		require.NotEmpty(r, renditions)
		for i, rung := range renditions {
			require.Zero(r, rung.Width%2+rung.Height%2)
			require.LessOrEqual(r, min(rung.Width, rung.Height), min(s.Width, s.Height)+1)
			require.Positive(r, rung.VideoBitrateBPS)
			if i > 0 {
				require.Less(r, min(rung.Width, rung.Height), min(renditions[i-1].Width, renditions[i-1].Height))
				require.Less(r, rung.VideoBitrateBPS, renditions[i-1].VideoBitrateBPS)
			}
		}
	})
}

// The cadence guarantees to be constant and the source's own: a standard one
// where the source's is a rounding of it, halved while it is above the cap.
func TestOutputCadence(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		average, nominal media.Rational
		want             media.Rational
	}{
		"only a time base":     {media.Rational{}, media.Rational{Num: 1000, Den: 1}, media.Rational{Num: 30, Den: 1}},
		"23.976":               {media.Rational{Num: 24000, Den: 1001}, media.Rational{Num: 24000, Den: 1001}, media.Rational{Num: 24000, Den: 1001}},
		"rounded 29.97":        {media.Rational{Num: 2997, Den: 100}, media.Rational{Num: 30000, Den: 1001}, media.Rational{Num: 30000, Den: 1001}},
		"phone around 30":      {media.Rational{Num: 29920, Den: 1001}, media.Rational{Num: 30, Den: 1}, media.Rational{Num: 30, Den: 1}},
		"variable, standard":   {media.Rational{Num: 14, Den: 1}, media.Rational{Num: 24000, Den: 1001}, media.Rational{Num: 24000, Den: 1001}},
		"variable, time base":  {media.Rational{Num: 28, Den: 1}, media.Rational{Num: 90000, Den: 1}, media.Rational{Num: 30000, Den: 1001}},
		"slow animation":       {media.Rational{Num: 10, Den: 1}, media.Rational{Num: 10, Den: 1}, media.Rational{Num: 10, Den: 1}},
		"120 is halved":        {media.Rational{Num: 120, Den: 1}, media.Rational{Num: 120, Den: 1}, media.Rational{Num: 120, Den: 2}},
		"nothing known":        {media.Rational{}, media.Rational{}, media.Rational{Num: 30, Den: 1}},
		"only the average":     {media.Rational{Num: 25, Den: 1}, media.Rational{}, media.Rational{Num: 25, Den: 1}},
		"screen recording 1/1": {media.Rational{Num: 7, Den: 2}, media.Rational{Num: 1000, Den: 1}, media.Rational{Num: 30, Den: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := camera()
			p.Streams[0].FrameRate, p.Streams[0].NominalFrameRate = c.average, c.nominal
			got := plan(t, p, media.Spec{})
			require.Equal(t, c.want, got.Outputs[0].Video.FrameRate)
		})
	}
}

// An interlaced source guarantees to keep the cadence of its pictures, where it
// tells that of its fields, too.
func TestCadenceOfFields(t *testing.T) {
	t.Parallel()
	p := camera()
	p.Streams[0].FieldOrder = "tt"
	for pictures, fields := range map[media.Rational]media.Rational{{Num: 25, Den: 1}: {Num: 50, Den: 1}, {Num: 30000, Den: 1001}: {Num: 60000, Den: 1001}} {
		p.Streams[0].FrameRate, p.Streams[0].NominalFrameRate = pictures, fields
		require.Equal(t, pictures, plan(t, p, media.Spec{}).Outputs[0].Video.FrameRate)
	}
}

// Segments guarantee to be whole GOPs, at a cadence that divides no second too.
func TestSegmentsAreWholeGOPs(t *testing.T) {
	t.Parallel()
	o := plan(t, camera(), media.Spec{Preset: "hls"}).Outputs[0]
	require.Equal(t, 48, o.Video.GOPFrames)
	require.InDelta(t, 96*1001.0/24000, o.SegmentSeconds, 1e-9)
	require.EqualValues(t, 300, o.Video.ExpectedFrames)
}

// The default preset guarantees to copy what plays on the web already, and
// to encode whatever would not come out right by copying.
func TestCopyWhenFitting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change       func(*media.Probe)
		video, audio bool
	}{
		"fits":           {func(*media.Probe) {}, true, true},
		"rotated":        {func(p *media.Probe) { p.Streams[0].RotationDegrees = 90 }, false, true},
		"10 bit":         {func(p *media.Probe) { p.Streams[0].PixelFormat = "yuv420p10le" }, false, true},
		"interlaced":     {func(p *media.Probe) { p.Streams[0].FieldOrder = "tt" }, false, true},
		"hevc":           {func(p *media.Probe) { p.Streams[0].Codec = "hevc" }, false, true},
		"surround":       {func(p *media.Probe) { p.Streams[1].Channels = 6 }, true, false},
		"opus":           {func(p *media.Probe) { p.Streams[1].Codec = "opus" }, true, false},
		"variable":       {func(p *media.Probe) { p.Streams[0].FrameRate = media.Rational{Num: 14, Den: 1} }, false, true},
		"odd size":       {func(p *media.Probe) { p.Streams[0].Width = 1919 }, false, true},
		"avi timestamps": {func(p *media.Probe) { p.Format = "avi" }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := camera()
			c.change(&p)
			o := plan(t, p, media.Spec{}).Outputs[0]
			require.Len(t, o.Video.Renditions, 1)
			require.Equal(t, c.video, o.Video.Renditions[0].Copy)
			require.Equal(t, c.audio, o.Audio.Copy)
		})
	}
}

// Sources without a picture or without sound guarantee an output without
// them, and a source without either is refused.
func TestMissingStreams(t *testing.T) {
	t.Parallel()
	silent := camera()
	silent.Streams = silent.Streams[:1]
	require.Nil(t, plan(t, silent, media.Spec{Preset: "hls"}).Outputs[0].Audio)
	sound := camera()
	sound.Streams = sound.Streams[1:]
	require.Nil(t, plan(t, sound, media.Spec{Preset: "hls"}).Outputs[0].Video)
	resolved, err := media.Resolve(media.Spec{})
	require.NoError(t, err)
	_, err = media.MakePlan(media.Probe{Streams: []media.Stream{{Kind: media.StreamSubtitle}}}, resolved, media.Limits{}, 1)
	var refused *media.PlanError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "INPUT_NO_USABLE_STREAM", refused.Reason)
}

// A stream that isn't used guarantees not to lengthen the plan.
func TestDurationIsOfUsedStreams(t *testing.T) {
	t.Parallel()
	p := camera()
	p.Duration = time.Minute
	p.Streams[0].Duration, p.Streams[1].Duration = 12*time.Second, time.Minute
	require.Equal(t, time.Minute, plan(t, p, media.Spec{}).Duration)
	silent := true
	require.Equal(t, 12*time.Second, plan(t, p, media.Spec{Audio: media.AudioSettings{Disabled: &silent}}).Duration)
}

// The stream that the container marks as default guarantees to be the one that is used.
func TestDefaultTrackWins(t *testing.T) {
	t.Parallel()
	p := camera()
	p.Streams = append(p.Streams, media.Stream{Index: 2, Kind: media.StreamAudio, Codec: "opus", Channels: 2, Default: true, Language: "deu"})
	a := plan(t, p, media.Spec{}).Outputs[0].Audio
	require.Equal(t, 2, a.StreamIndex)
	require.Equal(t, "deu", a.Language)
}

// A source beyond a limit guarantees INPUT_LIMIT_EXCEEDED.
func TestLimits(t *testing.T) {
	t.Parallel()
	resolved, err := media.Resolve(media.Spec{})
	require.NoError(t, err)
	for name, limits := range map[string]media.Limits{
		"pixels":   {MaxPixels: 1920*1080 - 1},
		"duration": {MaxDuration: 12 * time.Second},
		"fps":      {MaxFPS: 23},
		"streams":  {MaxStreams: 1},
	} {
		_, err := media.MakePlan(camera(), resolved, limits, 1)
		var refused *media.PlanError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, "INPUT_LIMIT_EXCEEDED", refused.Reason, name)
	}
}

// A plan guarantees one task for each output, heavier where more is encoded.
func TestTasks(t *testing.T) {
	t.Parallel()
	copied := media.Tasks(plan(t, camera(), media.Spec{}))
	ladder := media.Tasks(plan(t, camera(), media.Spec{Preset: "hls-adaptive"}))
	require.Len(t, copied, 1)
	require.Equal(t, "hls", ladder[0].Output)
	require.Greater(t, ladder[0].Weight, 20*copied[0].Weight)
}

// A task's id guarantees to name its job and index, and nothing else parses.
func TestTaskID(t *testing.T) {
	t.Parallel()
	job, index, ok := media.SplitTaskID(media.TaskID("01ABC", 17))
	require.True(t, ok)
	require.Equal(t, "01ABC", job)
	require.Equal(t, 17, index)
	for _, bad := range []string{"", "-", "01ABC", "01ABC-", "-1", "01ABC-x", "01ABC-01", "01ABC--1", "01ABC-1-2"} {
		_, _, ok := media.SplitTaskID(bad)
		require.False(t, ok, bad)
	}
}

// A long source on a pool of several slots guarantees chunks that cover every
// frame once: the first one segment, so that it plays soon, none too small to
// be worth a task, each beginning with a segment. Whatever one task does as
// well is left whole.
func TestChunks(t *testing.T) {
	t.Parallel()
	source := func(seconds int) media.Probe {
		p := camera()
		p.Duration = time.Duration(seconds) * time.Second
		for i := range p.Streams {
			p.Streams[i].Duration = p.Duration
		}

		return p
	}
	hls := func(t *testing.T, p media.Probe, slots int) media.Plan {
		t.Helper()
		resolved, err := media.Resolve(media.Spec{Preset: "hls-adaptive", Qualities: []string{"720p"}})
		require.NoError(t, err)
		got, err := media.MakePlan(p, resolved, media.Limits{}, slots)
		require.NoError(t, err)

		return got
	}
	for _, seconds := range []int{31, 33, 36, 41, 47, 60, 61, 3600, 36000} {
		o := hls(t, source(seconds), 8).Outputs[0]
		segment := int64(o.Video.GOPFrames) * 2
		next := int64(0)
		for i, c := range o.Chunks {
			require.Equal(t, next, c.First)
			require.Zero(t, c.First%segment)
			if i == 0 {
				require.Equal(t, segment, c.End)
			} else {
				require.GreaterOrEqual(t, c.End-c.First, 3*segment/2, "chunk %d of %d s", i, seconds)
				require.Less(t, c.End-c.First, 9*segment/2)
			}
			next = c.End
		}
		require.Equal(t, o.Video.ExpectedFrames, next)
	}
	require.Empty(t, hls(t, source(3600), 1).Outputs[0].Chunks, "one slot")
	require.Empty(t, hls(t, source(20), 8).Outputs[0].Chunks, "short")
	stream := source(3600)
	stream.Format = "mpegts"
	require.Empty(t, hls(t, stream, 8).Outputs[0].Chunks, "no index to seek by")

	plan := hls(t, source(60), 8)
	tasks := media.Tasks(plan)
	require.Equal(t, []int{1, 0, 2}, []int{tasks[0].Part, tasks[1].Part, tasks[2].Part})
	require.True(t, tasks[1].Audio)
	whole := media.Tasks(hls(t, source(60), 1))
	require.Len(t, whole, 1)
	var sum float64
	for _, task := range tasks {
		sum += task.Weight
	}
	require.InEpsilon(t, whole[0].Weight, sum, 0.01)

	_, ok := plan.Outputs[0].Share(len(plan.Outputs[0].Chunks) + 1)
	require.False(t, ok)
}

// A ladder in chunks guarantees that its smallest rendition's first segment is
// a task of its own, the first, and that the others' follows: together the
// chunks make every frame of every rendition once.
func TestFirstSegmentFirst(t *testing.T) {
	t.Parallel()
	p := camera()
	p.Duration = time.Minute
	for i := range p.Streams {
		p.Streams[i].Duration = p.Duration
	}
	spec, err := media.Resolve(media.Spec{Preset: "hls-adaptive", Qualities: []string{"720p", "480p", "360p"}})
	require.NoError(t, err)
	ladder, err := media.MakePlan(p, spec, media.Limits{}, 2)
	require.NoError(t, err)
	o := ladder.Outputs[0]
	first, _ := o.Share(1)
	require.Equal(t, "360p", first.Video.Renditions[0].Name)
	require.Len(t, first.Video.Renditions, 1)
	second, _ := o.Share(2)
	require.Equal(t, []string{"720p", "480p"}, []string{second.Video.Renditions[0].Name, second.Video.Renditions[1].Name})
	require.Len(t, o.Video.Renditions, 3, "the plan keeps all")
	made := map[string]int64{}
	for part := range o.Chunks {
		share, ok := o.Share(part + 1)
		require.True(t, ok)
		for _, r := range share.Video.Renditions {
			require.Equal(t, made[r.Name], share.Chunks[0].First)
			made[r.Name] = share.Chunks[0].End
		}
	}
	require.Equal(t, map[string]int64{
		"720p": o.Video.ExpectedFrames, "480p": o.Video.ExpectedFrames, "360p": o.Video.ExpectedFrames,
	}, made)
	require.Equal(t, []int{1, 0, 2, 3}, []int{
		media.Tasks(ladder)[0].Part, media.Tasks(ladder)[1].Part, media.Tasks(ladder)[2].Part, media.Tasks(ladder)[3].Part,
	})
}
