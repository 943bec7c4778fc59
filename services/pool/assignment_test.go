package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestTimeLimit: an attempt may run as long as what it makes takes at most, not
// as long as all of its job would; a chunk has the time to be reached besides.
func TestTimeLimit(t *testing.T) {
	t.Parallel()
	video := &media.VideoPlan{FrameRate: media.Rational{Num: 25, Den: 1}, Renditions: []media.RenditionPlan{{Name: "720p"}}}
	plan := &media.Plan{Duration: time.Hour, Outputs: []media.OutputPlan{
		{Name: "hls", Kind: media.KindHLS, Video: video, Audio: &media.AudioPlan{}, Chunks: []media.Chunk{{End: 50}, {First: 50, End: 350}}},
		{Name: "mp4", Kind: media.KindMP4, Video: video},
	}}
	short := &media.Plan{Duration: time.Second, Outputs: plan.Outputs[1:]}
	long := &media.Plan{Duration: 100 * time.Hour, Outputs: plan.Outputs}
	for name, c := range map[string]struct {
		plan  *media.Plan
		task  pipeline.Task
		limit time.Duration
	}{
		"probe":       {nil, pipeline.Task{Kind: pipeline.KindProbe}, probeTimeLimit},
		"chunk":       {plan, pipeline.Task{Kind: pipeline.KindEncode, Output: "hls", Part: 2}, 20*12*time.Second + time.Hour},
		"first chunk": {plan, pipeline.Task{Kind: pipeline.KindEncode, Output: "hls", Part: 1}, 20*2*time.Second + time.Hour},
		"sound":       {plan, pipeline.Task{Kind: pipeline.KindAudio, Output: "hls"}, 20 * time.Hour},
		"whole":       {plan, pipeline.Task{Kind: pipeline.KindEncode, Output: "mp4"}, 20 * time.Hour},
		"assembled":   {plan, pipeline.Task{Kind: pipeline.KindAssemble, Output: "mp4"}, 20 * time.Hour},
		"short":       {short, pipeline.Task{Kind: pipeline.KindEncode, Output: "mp4"}, minEncodeLimit},
		"long":        {long, pipeline.Task{Kind: pipeline.KindEncode, Output: "mp4"}, maxEncodeLimit},
	} {
		require.Equal(t, c.limit, timeLimit(&lease{task: c.task, job: pipeline.Job{Plan: c.plan}}), name)
	}
}

// TestStartByTheStoresClock: how long an attempt has run doesn't depend on what
// this replica's clock says.
func TestStartByTheStoresClock(t *testing.T) {
	t.Parallel()
	const length = 20 * time.Second
	for _, off := range []time.Duration{-time.Hour, 0, time.Hour} {
		now := time.Now().Add(off) // there
		l := newLease(pipeline.Lease{
			Task:    pipeline.Task{Attempts: []pipeline.Attempt{{Started: now.Add(-time.Minute)}}},
			Expires: now.Add(length),
		}, length)
		require.WithinDuration(t, time.Now().Add(-time.Minute), l.started, 10*time.Second)
	}
}
