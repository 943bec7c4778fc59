package job

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func at(s float64) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(s * float64(time.Second)))
}

// TestTell guarantees that readers learn how far each stage and rendition is,
// and what can be played.
func TestTell(t *testing.T) {
	t.Parallel()
	stages := func(probe, encode, publish float64) []pipeline.StageProgress {
		return []pipeline.StageProgress{{Stage: pipeline.StageProbe, Percent: probe}, {Stage: pipeline.StageEncode, Percent: encode}, {Stage: pipeline.StagePublish, Percent: publish}}
	}
	j := pipeline.Job{ID: "j", Project: "p", Run: 2, State: pipeline.JobPending}
	require.Empty(t, tell(j, at(0)).Progress.Stages)
	j.State, j.Times.Started = pipeline.JobRunning, at(0)
	require.Equal(t, stages(0, 0, 0), tell(j, at(1)).Progress.Stages)

	j.Plan, j.Times.Planned = &media.Plan{Duration: 40 * time.Second}, at(1)
	j.Tasks = []pipeline.Task{{Run: 1, State: pipeline.TaskDead}, {Run: 2, State: pipeline.TaskDone}, {Run: 2, State: pipeline.TaskLeased}}
	j.Progress = pipeline.Progress{Percent: 20, Share: 20, Renditions: []pipeline.RenditionProgress{
		{Output: "hls", Name: "240p", Playable: 10 * time.Second}, {Output: "hls", Name: "audio", Playable: 41 * time.Second},
	}}
	told := tell(j, at(6))
	require.Equal(t, stages(100, 20, 0), told.Progress.Stages)
	require.InDelta(t, 25, told.Progress.Renditions[0].Percent, 0)
	require.InDelta(t, 100, told.Progress.Renditions[1].Percent, 0)
	require.Equal(t, []pipeline.PlayableOutput{{Output: "hls", ObjectKey: "out/public/p/j/hls/master.m3u8"}}, told.Playable)
	require.Zero(t, j.Progress.Renditions[0].Percent, "what was read stays as it is")

	j.Tasks[2].State = pipeline.TaskDone
	require.Equal(t, stages(100, 100, 0), tell(j, at(9)).Progress.Stages)
	j.State, j.Progress = pipeline.JobCompleted, pipeline.Progress{Percent: 100}
	told = tell(j, at(10))
	require.Equal(t, stages(100, 100, 100), told.Progress.Stages)
	require.Empty(t, told.Playable)
}

// TestPace guarantees that media time, speed and the time that is left agree
// with the work that is done, whatever the task that told last says of itself,
// and that the time that is left is told only where it is known.
func TestPace(t *testing.T) {
	t.Parallel()
	taken := func(state pipeline.TaskState, s float64) pipeline.Task {
		return pipeline.Task{Run: 2, Kind: pipeline.KindEncode, State: state, Attempts: []pipeline.Attempt{{Number: 1, Started: at(s)}}}
	}
	job := func(change func(*pipeline.Job)) pipeline.Job {
		j := pipeline.Job{
			Run: 2, State: pipeline.JobRunning, Plan: &media.Plan{Duration: 40 * time.Second},
			Times:    pipeline.JobTimes{Started: at(0), Planned: at(1)},
			Progress: pipeline.Progress{Percent: 20, Share: 20, MediaTime: 39 * time.Second, Speed: 100, FPS: 75, ETA: time.Hour},
			Tasks: []pipeline.Task{
				{Run: 1, Kind: pipeline.KindEncode, State: pipeline.TaskDead, Attempts: []pipeline.Attempt{{Started: at(-1000)}}},
				{Run: 2, Kind: pipeline.KindProbe, State: pipeline.TaskDone, Attempts: []pipeline.Attempt{{Started: at(0)}}},
				taken(pipeline.TaskLeased, 101), taken(pipeline.TaskDone, 100),
				{Run: 2, Kind: pipeline.KindEncode, State: pipeline.TaskReady},
			},
		}
		change(&j)

		return j
	}
	for name, c := range map[string]struct {
		change func(*pipeline.Job)
		media  time.Duration
		speed  float64
		left   time.Duration
	}{
		// It waited a hundred seconds for a machine.
		"KnownFromTheFirstTask": {func(*pipeline.Job) {}, 8 * time.Second, 1.6, 20 * time.Second},
		"HasOnlyBegun":          {func(j *pipeline.Job) { j.Tasks = j.Tasks[:3]; j.Tasks[2] = taken(pipeline.TaskLeased, 103.5) }, 8 * time.Second, 0, 0},
		"TooLittle":             {func(j *pipeline.Job) { j.Progress.Percent, j.Progress.Share = 1, 1 }, 400 * time.Millisecond, 0.08, 0},
		"WorkWasLost":           {func(j *pipeline.Job) { j.Progress.Percent = 60 }, 8 * time.Second, 1.6, 0},
		"NotLost":               {func(j *pipeline.Job) { j.Progress.Percent = 20.001 }, 8 * time.Second, 1.6, 20 * time.Second},
		"MoreThanWasTold":       {func(j *pipeline.Job) { j.Progress.Percent = 10 }, 8 * time.Second, 1.6, 20 * time.Second},
		"AllWait":               {func(j *pipeline.Job) { j.Tasks[2].State = pipeline.TaskDelayed }, 8 * time.Second, 1.6, 0},
		"NoneWasTaken":          {func(j *pipeline.Job) { j.Tasks = append(j.Tasks[:2:2], j.Tasks[4]); j.Progress.Share = 0 }, 0, 0, 0},
		"InAList":               {func(j *pipeline.Job) { j.Tasks = nil }, 8 * time.Second, 0, 0},
		"AllDone":               {func(j *pipeline.Job) { j.Tasks = j.Tasks[:4]; j.Tasks[2].State = pipeline.TaskDone }, 40 * time.Second, 8, 0},
		"Completed": {func(j *pipeline.Job) {
			j.State, j.Times.Finished, j.Progress.Percent = pipeline.JobCompleted, at(104), 100
		}, 40 * time.Second, 10, 0},
		"Canceled": {func(j *pipeline.Job) {
			j.State, j.Times.Finished, j.Tasks[2].State = pipeline.JobCanceled, at(104), pipeline.TaskCanceled
		}, 8 * time.Second, 2, 0},
	} {
		p := tell(job(c.change), at(105)).Progress
		require.Equal(t, c.media, p.MediaTime, name)
		require.InDelta(t, c.speed, p.Speed, 0.001, name)
		require.Equal(t, c.left, p.ETA, name)
		require.InDelta(t, 75, p.FPS, 0, name)
	}
}

// TestTellFiles guarantees that of a job that runs each file is told, by the
// media time that is made: of one that is put together, by that of its
// segments, and all of it only once it is there.
func TestTellFiles(t *testing.T) {
	t.Parallel()
	video := func(names ...string) *media.VideoPlan {
		v := &media.VideoPlan{FrameRate: media.Rational{Num: 25, Den: 1}}
		for _, name := range names {
			v.Renditions = append(v.Renditions, media.RenditionPlan{Name: name})
		}

		return v
	}
	sound := &media.AudioPlan{Name: "audio"}
	j := pipeline.Job{Run: 2, State: pipeline.JobRunning, Plan: &media.Plan{Duration: 40 * time.Second, Outputs: []media.OutputPlan{
		{
			Name: "mp4", Kind: media.KindMP4, Video: video("1080p", "720p"), Audio: sound,
			Assembled: []media.Assembly{{Rendition: "720p", From: "mp4.parts"}},
		},
		{Name: "sound", Kind: media.KindMP4, Audio: sound},
		{
			Name: "mp4.parts", Kind: media.KindHLS, Intermediate: true, Video: video("720p"), Audio: sound,
			Chunks: []media.Chunk{{First: 0, End: 250}, {First: 250, End: 1000}},
		},
	}}}
	task := func(output string, part int) pipeline.Task {
		return pipeline.Task{Run: 2, Output: output, Part: part, State: pipeline.TaskBlocked}
	}
	j.Tasks = []pipeline.Task{
		{Run: 1, Output: "mp4", State: pipeline.TaskDone},
		{Run: 2, Kind: pipeline.KindProbe, State: pipeline.TaskDone},
		task("mp4", 0), task("sound", 0), task("mp4.parts", 0), task("mp4.parts", 1), task("mp4.parts", 2), task("mp4", 1),
	}
	percents := func(want ...float64) {
		t.Helper()
		told := tell(j, at(0))
		require.Empty(t, told.Playable)
		var names []string
		for i, r := range told.Progress.Renditions {
			names = append(names, r.Output+" "+r.Name)
			require.InDelta(t, want[i], r.Percent, 0.001, names[i])
			require.Zero(t, r.Playable)
		}
		require.Equal(t, []string{"mp4 1080p", "mp4 720p", "sound audio"}, names)
	}
	percents(0, 0, 0)
	j.Tasks[2].Fraction, j.Tasks[3].State, j.Tasks[4].State = 0.3, pipeline.TaskDone, pipeline.TaskDone
	percents(30, 0, 100)
	j.Tasks[5].State, j.Tasks[6].Fraction = pipeline.TaskDone, 0.5
	percents(30, 62.5, 100)
	j.Tasks[2].Fraction, j.Tasks[6].Fraction, j.Tasks[6].State = 1, 0, pipeline.TaskDone
	percents(99.9, 99.9, 100)
	j.Tasks[2].State, j.Tasks[7].State = pipeline.TaskDone, pipeline.TaskDone
	percents(100, 100, 100)

	listed := j
	listed.Tasks = nil
	require.Empty(t, tell(listed, at(0)).Progress.Renditions)
	j.State = pipeline.JobCompleted
	require.Empty(t, tell(j, at(0)).Progress.Renditions)
}
