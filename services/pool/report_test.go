package pool_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/services/pool"
)

const (
	accepted = tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED
	stale    = tcoderv1.ReportVerdict_REPORT_VERDICT_STALE
	rejected = tcoderv1.ReportVerdict_REPORT_VERDICT_REJECTED
)

// TestJob: a task reaches an idle worker at once, and a job goes through the
// stream from its submission to its published output.
func TestJob(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, welcome := r.attach(t, &tcoderv1.Hello{})
	require.Equal(t, 5*time.Second, welcome.GetHeartbeatInterval().AsDuration())
	require.Equal(t, 20*time.Second, welcome.GetLease().AsDuration())
	require.Nil(t, welcome.GetIdleThreshold())

	submitted := time.Now()
	job := c.submit(t)
	probe := w.assignment()
	require.Less(t, time.Since(submitted), promptly)
	require.Equal(t, job.ID, probe.GetJobId())
	require.EqualValues(t, 1, probe.GetLease().GetAttempt())
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_PROBE, probe.GetKind())
	require.Equal(t, time.Hour, probe.GetProbe().GetLimits().GetMaxDuration().AsDuration())
	require.Equal(t, 2*time.Minute, probe.GetTimeLimit().AsDuration())
	require.Equal(t, job.Source.SizeBytes, int64(probe.GetSourceSizeBytes()))
	require.Equal(t, "etag", probe.GetSourceEtag())
	get, err := http.NewRequestWithContext(t.Context(), probe.GetSource().GetMethod(), probe.GetSource().GetUrl(), http.NoBody)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, do(t, get))
	require.Equal(t, accepted, w.report(probed(probe.GetLease())))

	encode := w.assignment()
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ENCODE, encode.GetKind())
	require.Equal(t, 200*time.Second, encode.GetTimeLimit().AsDuration())
	require.Equal(t, 10*time.Second, encode.GetEncode().GetDuration().AsDuration())
	require.Equal(t, "vp9", encode.GetEncode().GetSource().GetStreams()[0].GetCodec())
	report, files := w.encode(encode)
	w.upload(report, files)
	require.Equal(t, accepted, w.report(report))

	require.Eventually(t, func() bool { return c.job(t, job.ID).State == pipeline.JobCompleted }, patience, 5*time.Millisecond)
	done := c.job(t, job.ID)
	require.Len(t, done.Outputs, 1)
	for _, object := range done.Outputs[0].Objects {
		info, err := c.out.Head(t.Context(), object.Key)
		require.NoError(t, err)
		require.Equal(t, object.SizeBytes, info.SizeBytes)
	}
	require.Equal(t, accepted, w.report(report), "a report that comes twice gets the first answer")
}

// TestReportAfterReconnect: a report whose answer was lost is answered again
// by a session that knows nothing of its lease.
func TestReportAfterReconnect(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	probe := w.assignment()
	require.Equal(t, accepted, w.report(probed(probe.GetLease())))
	encode := w.assignment()
	report, files := w.encode(encode)
	w.upload(report, files)
	require.Equal(t, accepted, w.report(report))
	w.cut()

	w, welcome := r.attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{probe.GetLease(), encode.GetLease()}})
	require.Empty(t, welcome.GetKept())
	require.Equal(t, accepted, w.report(probed(probe.GetLease())))
	require.Equal(t, accepted, w.report(report))
	require.Equal(t, stale, w.report(probed(&tcoderv1.LeaseRef{TaskId: "nojob-0", Attempt: 1})))
}

// TestStaleReport: a report for a lease that was taken away changes nothing,
// and the attempt that has the task goes on.
func TestStaleReport(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	zombie, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	lost := zombie.assignment().GetLease()
	other, _ := r.attach(t, &tcoderv1.Hello{})
	_, err := c.store.DrainWorker(t.Context(), zombie.id) // or it could have the task itself again
	require.NoError(t, err)
	verdict, err := c.store.ReleaseTask(t.Context(), zombie.id, pipeline.LeaseRef{TaskID: lost.GetTaskId(), Attempt: 1})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, verdict)
	again := other.assignment().GetLease()
	require.EqualValues(t, 2, again.GetAttempt())
	require.Equal(t, stale, zombie.report(probed(lost)))
	require.Equal(t, stale, zombie.report(failed(lost, tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT)))
	require.Equal(t, accepted, other.report(probed(again)))
	require.Equal(t, pipeline.JobRunning, c.job(t, job.ID).State)
}

// TestSign: a worker can write what it declared, below its own attempt's
// folder, while it holds the lease, and nothing else.
func TestSign(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	object := &tcoderv1.EncodedObject{Name: "360p/00000.m4s", SizeBytes: 5, ContentType: "video/iso.segment"}

	probe := w.assignment()
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, w.sign(probe.GetLease(), object).GetRefused().GetReason())
	require.Equal(t, accepted, w.report(probed(probe.GetLease())))
	encode := w.assignment()
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_LEASE_LOST, w.sign(probe.GetLease(), object).GetRefused().GetReason())

	output := encode.GetEncode().GetOutput().GetName()
	signed := w.sign(encode.GetLease(), object)
	require.Nil(t, signed.GetRefused())
	require.Contains(t, signed.GetRequests()[0].GetUrl(),
		"/"+media.OutputPrefix(job.Project, job.ID, output)+media.AttemptDir(1, 1)+"/360p/00000.m4s?")
	require.Equal(t, http.StatusForbidden, put(t, signed.GetRequests()[0], []byte("longer")))
	require.Equal(t, http.StatusOK, put(t, signed.GetRequests()[0], []byte("right")))

	other := &tcoderv1.LeaseRef{TaskId: encode.GetLease().GetTaskId(), Attempt: 2}
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_LEASE_LOST, w.sign(other, object).GetRefused().GetReason())
	for _, bad := range []*tcoderv1.EncodedObject{
		{Name: "360p/00000.m4s", SizeBytes: 0, ContentType: "video/iso.segment"},
		{Name: "360p/00000.m4s", SizeBytes: 5, ContentType: "text/html"},
		{Name: "360p/00000.m4s", SizeBytes: uint64(objectstore.MaxPutSizeBytes) + 1, ContentType: "video/mp4"},
		{Name: "360p/00000.m4s", SizeBytes: 4 << 30, ContentType: "video/mp4"}, // a 10 s clip
	} {
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, w.sign(encode.GetLease(), bad).GetRefused().GetReason())
	}
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{Sign: &tcoderv1.SignRequest{
		Lease: encode.GetLease(), Objects: []*tcoderv1.EncodedObject{{Name: "../../x", SizeBytes: 5, ContentType: "video/mp4"}},
	}}})
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(w.ends()), "a name that leaves the folder ends the stream")
}

// TestRejected: a result that isn't what was planned, or isn't in the store,
// is not published; its attempt failed and is charged.
func TestRejected(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.Retry.MaxFailures = 1 })
	w, _ := r.attach(t, &tcoderv1.Hello{})
	for name, spoil := range map[string]func(r *tcoderv1.TaskReport, files map[string][]byte){
		"missing object": func(_ *tcoderv1.TaskReport, files map[string][]byte) { clear(files) },
		"missing segments": func(r *tcoderv1.TaskReport, _ map[string][]byte) {
			r.GetEncode().GetRenditions()[0].Segments = nil
		},
		"wrong size": func(r *tcoderv1.TaskReport, _ map[string][]byte) {
			r.GetEncode().GetRenditions()[0].GetInitSegment().SizeBytes++
		},
	} {
		job := c.submit(t)
		require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
		report, files := w.encode(w.assignment())
		if name != "missing object" {
			w.upload(report, files)
		}
		spoil(report, files)
		require.Equal(t, rejected, w.report(report), name)
		failedJob := c.job(t, job.ID)
		require.Equal(t, pipeline.JobFailed, failedJob.State, name)
		require.Equal(t, pipeline.ReasonOutputInvalid, failedJob.Failure.Reason, name)
		require.Equal(t, rejected, w.report(report), "a report that comes twice gets the first answer")
	}
}

// unforeseen is a store with a bug that one job brings out.
type unforeseen struct{ pool.Store }

func (unforeseen) FinishTask(context.Context, pipeline.TaskResult) (pipeline.Verdict, bool, error) {
	panic("a source that nobody thought of")
}

// TestPanic: a report that nothing is prepared for costs its job, not the
// replica.
func TestPanic(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, d *pool.Deps) {
		cfg.Retry.MaxFailures, d.Store = 1, unforeseen{d.Store}
	})
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	require.Equal(t, rejected, w.report(probed(w.assignment().GetLease())))
	require.Equal(t, pipeline.JobFailed, c.job(t, job.ID).State)
}

// TestFaults: each class of fault ends an attempt in its own way.
func TestFaults(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})

	broken := c.submit(t)
	ref := w.assignment().GetLease()
	require.Equal(t, accepted, w.report(failed(ref, tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA)))
	job := c.job(t, broken.ID)
	require.Equal(t, pipeline.JobFailed, job.State)
	require.Equal(t, pipeline.ReasonInputNotMedia, job.Failure.Reason)

	empty := c.submit(t)
	unusable := probed(w.assignment().GetLease())
	unusable.GetProbe().Streams = nil
	require.Equal(t, accepted, w.report(unusable))
	job = c.job(t, empty.ID)
	require.Equal(t, pipeline.JobFailed, job.State)
	require.Equal(t, pipeline.ReasonInputNoUsableStream, job.Failure.Reason)

	unlucky := c.submit(t)
	ref = w.assignment().GetLease()
	require.Equal(t, accepted, w.report(failed(ref, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED)))
	task := c.job(t, unlucky.ID).Tasks[0]
	require.Equal(t, pipeline.TaskDelayed, task.State)
	require.True(t, task.Attempts[0].Charged)

	handed := c.submit(t)
	ref = w.assignment().GetLease()
	require.Equal(t, accepted, w.report(&tcoderv1.TaskReport{Lease: ref, End: &tcoderv1.TaskReport_Released{Released: &tcoderv1.Released{}}}))
	require.EqualValues(t, 2, w.assignment().GetLease().GetAttempt())
	require.False(t, c.job(t, handed.ID).Tasks[0].Attempts[0].Charged)
}

// TestRedisOutage: a report that comes while Redis is down is settled when it
// is back, and the same stream gets the next task.
func TestRedisOutage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{FsyncAlways: true})
	c := newCellOn(t, server.URL(), "{outage}")
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	ref := w.assignment().GetLease()
	server.Kill()
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{Report: probed(ref)}})
	pause := time.After(200 * time.Millisecond)
	select {
	case m := <-w.in:
		require.Nil(t, m.GetReport(), "nothing can be accepted now")
	case <-pause:
	}
	server.Restart()
	require.Equal(t, accepted, expect(w, (*tcoderv1.AttachResponse).GetReport).GetVerdict())
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ENCODE, w.assignment().GetKind())
}
