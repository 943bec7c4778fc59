package job

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestTell guarantees that readers learn how far each stage and rendition is,
// what can be played, and the time that is left only once it is known.
func TestTell(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	stages := func(probe, encode, publish float64) []pipeline.StageProgress {
		return []pipeline.StageProgress{{Stage: pipeline.StageProbe, Percent: probe}, {Stage: pipeline.StageEncode, Percent: encode}, {Stage: pipeline.StagePublish, Percent: publish}}
	}
	j := pipeline.Job{ID: "j", Project: "p", Run: 2, State: pipeline.JobPending}
	require.Empty(t, tell(j, start).Progress.Stages)
	j.State, j.Times.Started = pipeline.JobRunning, start
	require.Equal(t, stages(0, 0, 0), tell(j, at(1)).Progress.Stages)

	j.Plan, j.Times.Planned = &media.Plan{Duration: 40 * time.Second}, at(1)
	j.Tasks = []pipeline.Task{{Run: 1, State: pipeline.TaskDead}, {Run: 2, State: pipeline.TaskDone}, {Run: 2, State: pipeline.TaskLeased}}
	j.Progress = pipeline.Progress{Percent: 1}
	require.Zero(t, tell(j, at(30)).Progress.ETA, "too little is done")
	j.Progress.Percent = 20
	require.Zero(t, tell(j, at(2)).Progress.ETA, "it has only begun")
	j.Progress.Renditions = []pipeline.RenditionProgress{
		{Output: "hls", Name: "240p", Playable: 10 * time.Second}, {Output: "hls", Name: "audio", Playable: 41 * time.Second},
	}
	told := tell(j, at(6))
	require.Equal(t, 20*time.Second, told.Progress.ETA)
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
	require.Zero(t, told.Progress.ETA)
	require.Empty(t, told.Playable)
}
