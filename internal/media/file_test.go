package media_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// filePlan plans outputs for a source of some seconds and a pool of 8 slots.
func filePlan(t *testing.T, seconds int, outputs ...media.OutputSpec) media.Plan {
	t.Helper()
	p := camera()
	p.Duration = time.Duration(seconds) * time.Second
	resolved, err := media.Resolve(media.Spec{Outputs: outputs})
	require.NoError(t, err)
	plan, err := media.MakePlan(p, resolved, media.Limits{}, 8)
	require.NoError(t, err)

	return plan
}

func hlsSpec(qualities ...string) media.OutputSpec {
	return media.OutputSpec{Name: "hls", Kind: media.KindHLS, Qualities: qualities}
}

func mp4Spec(policy media.CopyPolicy, qualities ...string) media.OutputSpec {
	return media.OutputSpec{Name: "mp4", Kind: media.KindMP4, Copy: policy, Qualities: qualities}
}

// Files beside a stream are made of its segments: nothing is encoded twice,
// what fits is still copied from the source, and each file waits for just the
// tasks that make its segments.
func TestFilesBesideAStream(t *testing.T) {
	t.Parallel()
	plan := filePlan(t, 20, mp4Spec(media.CopyWhenFitting, "1080p", "720p", "360p"), hlsSpec("720p", "360p"))
	require.Len(t, plan.Outputs, 2)
	require.Equal(t, []media.Assembly{{Rendition: "720p", From: "hls"}, {Rendition: "360p", From: "hls"}}, plan.Outputs[0].Assembled)

	tasks := media.Tasks(plan)
	require.Len(t, tasks, 4)
	require.Equal(t, "mp4", tasks[0].Output)
	direct, ok := plan.Outputs[0].Share(0)
	require.True(t, ok)
	require.Equal(t, map[string][2]int{"1080p": {1920, 1080}}, sizes(direct.Video))
	require.True(t, direct.Video.Renditions[0].Copy)
	for i, task := range tasks[2:] {
		require.Equal(t, media.TaskPlan{Output: "mp4", Part: i + 1, Joins: true, Weight: task.Weight, After: []int{1}}, task)
		require.Less(t, task.Weight, tasks[1].Weight/10)
		share, ok := plan.Outputs[0].Share(task.Part)
		require.True(t, ok)
		require.Len(t, share.Video.Renditions, 1)
	}
	_, ok = plan.Outputs[0].Share(3)
	require.False(t, ok)
}

// Files of a long source are made by many workers, through an intermediate
// output that nobody sees: their chunks have no small first one, and every file
// waits for all of them and the sound.
func TestFilesOfALongSource(t *testing.T) {
	t.Parallel()
	plan := filePlan(t, 60, mp4Spec(media.CopyNever, "720p", "360p"))
	require.Len(t, plan.Outputs, 2)
	parts := plan.Outputs[1]
	require.True(t, parts.Intermediate)
	require.Equal(t, "mp4.parts", parts.Name)
	require.Len(t, parts.Chunks, 5)
	require.Empty(t, parts.Chunks[0].Renditions)
	require.Empty(t, media.ManifestKeys("p", "j", parts))
	_, ok := plan.Outputs[0].Share(0)
	require.False(t, ok, "no file is made of the source")

	tasks := media.Tasks(plan)
	require.Len(t, tasks, 8)
	for _, task := range tasks[6:] {
		require.True(t, task.Joins)
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, task.After)
	}

	require.Len(t, filePlan(t, 20, mp4Spec(media.CopyNever, "720p")).Outputs, 1, "short")
	require.Len(t, filePlan(t, 60, mp4Spec(media.CopyWhenFitting, "1080p")).Outputs, 1, "copied")
	mixed := filePlan(t, 60, mp4Spec(media.CopyNever, "720p", "240p"), hlsSpec("720p"))
	require.Equal(t, []media.Assembly{{Rendition: "720p", From: "hls"}, {Rendition: "240p", From: "mp4.parts"}}, mixed.Outputs[0].Assembled)
	require.Equal(t, map[string][2]int{"240p": {426, 240}}, sizes(mixed.Outputs[2].Video))
}

// A file is accepted only with every frame of its segments.
func TestVerifyJoined(t *testing.T) {
	t.Parallel()
	plan := filePlan(t, 60, mp4Spec(media.CopyNever, "720p"))
	made := func(frames int64, length time.Duration) media.EncodeResult {
		return media.EncodeResult{Renditions: []media.EncodedRendition{{Result: media.RenditionResult{FrameCount: frames, Duration: length}}}}
	}
	video := media.Joined{Result: media.RenditionResult{FrameCount: 1440, Duration: time.Minute}}
	require.NoError(t, media.VerifyJoined(plan.Outputs[0], video, made(1440, time.Minute)))
	require.ErrorContains(t, media.VerifyJoined(plan.Outputs[0], video, made(1439, time.Minute)), "1439 frames")
	require.ErrorContains(t, media.VerifyJoined(plan.Outputs[0], video, made(1440, 59*time.Second)), "59s")
}

// The tasks of a plan make each rendition over all of its media time, and each
// file is one of them.
func TestMadeBy(t *testing.T) {
	t.Parallel()
	for seconds, outputs := range map[int][]media.OutputSpec{
		20:  {mp4Spec(media.CopyWhenFitting, "1080p", "720p", "360p"), hlsSpec("720p", "360p")},
		600: {mp4Spec(media.CopyNever, "720p", "360p")},
	} {
		plan := filePlan(t, seconds, outputs...)
		made := map[string]time.Duration{}
		for _, task := range media.Tasks(plan) {
			names, length := plan.MadeBy(task.Output, task.Part)
			require.NotEmpty(t, names)
			for _, name := range names {
				made[task.Output+" "+name] += length
			}
		}
		for _, o := range plan.Outputs {
			files := o.Files()
			require.Equal(t, o.Kind == media.KindMP4, len(files) > 0)
			require.NotContains(t, files, "audio", "the sound is in the files of the picture")
			for _, r := range o.Video.Renditions {
				require.InDelta(t, plan.Duration.Seconds(), made[o.Name+" "+r.Name].Seconds(), 0.04, "a frame")
				require.True(t, len(files) == 0 || slices.Contains(files, r.Name))
			}
		}
	}
	names, length := media.Plan{}.MadeBy("mp4", 0)
	require.Empty(t, names)
	require.Zero(t, length)
	require.Equal(t, []string{"audio"}, media.OutputPlan{Kind: media.KindMP4, Audio: &media.AudioPlan{Name: "audio"}}.Files())
}
