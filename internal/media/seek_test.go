package media_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// keyed is a source of 24 frames a second with keyframes at some frames. Its
// picture starts later than its sound.
func keyed(frames []int64, count int64, start time.Duration) media.Probe {
	p := camera()
	rate := media.Rational{Num: 24, Den: 1}
	table := &media.KeyframeTable{Frames: frames, Timescale: 24000, FrameCount: count, FrameRate: rate, LeadTicks: 2000}
	for _, at := range frames {
		table.Ticks = append(table.Ticks, 1000*at)
	}
	p.StartTime, p.Duration = time.Second, start+time.Duration(count)*time.Second/24
	v := &p.Streams[0]
	v.Keyframes, v.FrameCount, v.StartTime = table, count, p.StartTime+start
	v.FrameRate, v.NominalFrameRate, v.Duration = rate, rate, p.Duration-start

	return p
}

func chunksOf(t require.TestingT, p media.Probe) media.OutputPlan {
	spec, err := media.Resolve(media.Spec{Preset: "hls-adaptive", Copy: media.CopyNever})
	require.NoError(t, err)
	plan, err := media.MakePlan(p, spec, media.Limits{}, 8)
	require.NoError(t, err)

	return plan.Outputs[0]
}

// A source whose keyframes are known guarantees chunks that begin a little
// after one of them, and that tell which, to seek there.
func TestChunksAtKeyframes(t *testing.T) {
	t.Parallel()
	// Of a film: scenes of 1 to 10 s.
	p := keyed([]int64{0, 250, 297, 342, 404, 444, 539, 579, 629, 666, 692, 737, 987, 1040, 1184, 1232, 1482}, 1488, 0)
	var starts []int64
	var spare time.Duration
	for _, c := range chunksOf(t, p).Chunks[2:] {
		starts = append(starts, c.First/24)
		spare += time.Duration(c.First)*time.Second/24 - c.Keyframe
	}
	require.Equal(t, []int64{4, 16, 28, 44, 52}, starts)
	require.Less(t, spare, 8*time.Second, "with chunks of 12 s it would be 17 s")
}

// Whatever a source's keyframes are, a chunk's is guaranteed to be one of them
// that is shown no later than the chunk begins, and to be the last that is
// decoded before the next one's turn; and chunks are as long as they should be.
func TestChunkKeyframe(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		count := rapid.Int64Range(31*24, 300*24).Draw(r, "frames")
		frames := []int64{0}
		for {
			next := frames[len(frames)-1] + rapid.OneOf(rapid.Int64Range(1, 4), rapid.Int64Range(5, 300)).Draw(r, "group")
			if next >= count {
				break
			}
			frames = append(frames, next)
		}
		start := time.Duration(rapid.Int64Range(0, 500).Draw(r, "start ms")) * time.Millisecond
		o := chunksOf(r, keyed(frames, count, start))
		for i, c := range o.Chunks {
			if seconds := float64(c.End-c.First) / 24; i > 1 {
				require.InDelta(r, 12, seconds, 4)
			}
			if c.Keyframe == 0 {
				continue
			}
			at := (c.Keyframe - start).Seconds() * 24
			place := int64(math.Round(at))
			require.InDelta(r, at, place, 0.001)
			n, found := slices.BinarySearch(frames, place)
			require.True(r, found)
			require.LessOrEqual(r, c.Keyframe, time.Duration((float64(c.First)+0.25)/24*float64(time.Second)))
			if n+1 < len(frames) {
				require.Greater(r, frames[n+1]-frames[n], int64(2), "a seek would find the next one")
			}
		}
	})
}
