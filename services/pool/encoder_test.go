package pool_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func (c *cell) submitHEVC(t *testing.T) pipeline.Job {
	t.Helper()
	return c.submitSpec(t, media.Spec{Preset: "hls", Video: media.VideoSettings{Codec: media.HEVC}})
}

// TestEncoderMissing: a job whose codec nobody has fails at its first try, with
// the reason and what to do; one that asks for what there is doesn't.
func TestEncoderMissing(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{Encoders: []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_H264}})
	job := c.submitHEVC(t)
	require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
	ended := c.job(t, job.ID)
	require.Equal(t, pipeline.JobFailed, ended.State)
	require.Equal(t, pipeline.ReasonEncoderMissing, ended.Failure.Reason)
	require.Contains(t, ended.Failure.Message, "No worker can encode HEVC.")
	require.Contains(t, ended.Failure.Message, "retry the job")

	c.submit(t)
	require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ENCODE, w.assignment().GetKind())
}

// TestEncoderIdle: a task comes to the idle worker that has its encoder, though
// one that lacks it has more room.
func TestEncoderIdle(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	able, _ := r.attach(t, &tcoderv1.Hello{Encoders: []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_HEVC}})
	lacking, _ := r.attach(t, &tcoderv1.Hello{Slots: 4, Encoders: []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_H264}})
	c.submitHEVC(t)
	require.Equal(t, accepted, lacking.report(probed(lacking.assignment().GetLease())))
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ENCODE, able.assignment().GetKind())
}

// TestEncoderElsewhere: a task goes to the worker that has its encoder, and
// fails the job once that one is gone.
func TestEncoderElsewhere(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	able, _ := r.attach(t, &tcoderv1.Hello{Encoders: []tcoderv1.VideoCodec{
		tcoderv1.VideoCodec_VIDEO_CODEC_H264, tcoderv1.VideoCodec_VIDEO_CODEC_HEVC,
	}})
	c.submitHEVC(t)
	job := c.submitHEVC(t)
	first := able.assignment() // it is full
	hello := &tcoderv1.Hello{Encoders: []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_H264}}
	lacking, _ := r.attach(t, hello)
	probe := lacking.assignment()
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_PROBE, probe.GetKind())
	require.Equal(t, job.ID, probe.GetJobId())
	require.Equal(t, accepted, lacking.report(probed(probe.GetLease())))
	require.Eventually(t, func() bool { // the first fault of a machine rests for no time, the next do
		tasks := c.job(t, job.ID).Tasks
		return len(tasks) == 2 && tasks[1].State == pipeline.TaskDelayed
	}, patience, 20*time.Millisecond)
	require.Equal(t, pipeline.JobRunning, c.job(t, job.ID).State, "nothing is charged")
	quiet(lacking, (*tcoderv1.AttachResponse).GetAssignment)

	pass := func(d time.Duration) {
		require.NoError(t, c.store.AdvanceClock(t.Context(), d))
		_, err := c.store.Sweep(t.Context(), pipeline.SweepRequest{
			Replica: "test", LeaderTTL: time.Minute, Lease: time.Minute, Retry: pipeline.DefaultRetryPolicy(),
			Attached: []string{hello.GetWorkerId()},
		})
		require.NoError(t, err)
	}

	// The one that has it is cut off: it may come back.
	able.cut()
	require.Error(t, able.ends())
	pass(30 * time.Second)
	quiet(lacking, (*tcoderv1.AttachResponse).GetAssignment)
	require.Equal(t, pipeline.JobRunning, c.job(t, job.ID).State)

	// It doesn't.
	pass(40 * time.Second)
	require.Eventually(t, func() bool {
		pass(0)
		return c.job(t, job.ID).State == pipeline.JobFailed
	}, patience, 50*time.Millisecond)
	require.Equal(t, pipeline.ReasonEncoderMissing, c.job(t, job.ID).Failure.Reason)
	require.NotEqual(t, pipeline.JobFailed, c.job(t, first.GetJobId()).State)
}
