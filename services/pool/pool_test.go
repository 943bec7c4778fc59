package pool_test

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
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
	require.Less(t, time.Since(submitted), time.Second)
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

// TestReattach: a cut stream changes nothing. The worker attaches again, here
// to another replica, is told what is still its own and what is lost, and its
// attempt goes on.
func TestReattach(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t), c.replica(t)
	w, _ := first.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	ref := w.assignment().GetLease()
	w.cut()
	require.Error(t, w.ends())

	foreign := &tcoderv1.LeaseRef{TaskId: media.TaskID(job.ID, 9), Attempt: 1}
	w, welcome := second.attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{ref, foreign}})
	require.Len(t, welcome.GetKept(), 1)
	require.Equal(t, ref.GetTaskId(), welcome.GetKept()[0].GetLease().GetTaskId())
	require.NotEmpty(t, welcome.GetKept()[0].GetSource().GetUrl())
	require.Len(t, welcome.GetLost(), 1)
	require.Equal(t, foreign.GetTaskId(), welcome.GetLost()[0].GetTaskId())
	require.Equal(t, accepted, w.report(probed(ref)))
	require.Len(t, c.job(t, job.ID).Tasks[0].Attempts, 1)
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

// TestLostAssignment: a task whose assignment didn't reach its worker is given
// out again as soon as the worker says that it doesn't hold it.
func TestLostAssignment(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	require.EqualValues(t, 1, w.assignment().GetLease().GetAttempt())
	w.cut()
	w, _ = r.attach(t, &tcoderv1.Hello{WorkerId: w.id})
	again := w.assignment().GetLease()
	require.EqualValues(t, 2, again.GetAttempt())
	require.Equal(t, accepted, w.report(probed(again)))
}

// hookedStore does something between a claim and its answer.
type hookedStore struct {
	pool.Store

	claimed func(pipeline.Claim, []pipeline.Lease)
}

func (s hookedStore) ClaimTasks(ctx context.Context, c pipeline.Claim) ([]pipeline.Lease, error) {
	leases, err := s.Store.ClaimTasks(ctx, c)
	s.claimed(c, leases)
	return leases, err
}

// TestUnsentAssignment: a task that was claimed for a worker whose stream
// ended meanwhile is handed back at once, and not charged.
func TestUnsentAssignment(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	var leaver atomic.Pointer[worker]
	r := c.replica(t, func(_ *pool.Config, d *pool.Deps) {
		d.Store = hookedStore{c.store, func(claim pipeline.Claim, leases []pipeline.Lease) {
			if w := leaver.Load(); w != nil && claim.WorkerID == w.id && len(leases) > 0 {
				w.cut()
				require.Eventually(t, func() bool {
					workers, err := c.store.ListWorkers(t.Context())
					return err == nil && slices.ContainsFunc(workers, func(seen pipeline.Worker) bool {
						return seen.ID == w.id && !seen.Attached
					})
				}, patience, time.Millisecond)
			}
		}}
	})
	w, _ := r.attach(t, &tcoderv1.Hello{})
	leaver.Store(w)
	job := c.submit(t)
	require.Error(t, w.ends())
	other, _ := r.attach(t, &tcoderv1.Hello{})
	require.EqualValues(t, 2, other.assignment().GetLease().GetAttempt())
	require.False(t, c.job(t, job.ID).Tasks[0].Attempts[0].Charged)
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
	verdict, err := c.store.ReleaseTask(t.Context(), zombie.id, pipeline.LeaseRef{TaskID: lost.GetTaskId(), Attempt: 1})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, verdict)
	require.Equal(t, stale, zombie.report(probed(lost)))
	require.Equal(t, stale, zombie.report(failed(lost, tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT)))

	holder := zombie // its slot is free since, so either may have it
	select {
	case m := <-other.in:
		holder = other
		require.EqualValues(t, 2, m.GetAssignment().GetLease().GetAttempt())
	case m := <-zombie.in:
		require.EqualValues(t, 2, m.GetAssignment().GetLease().GetAttempt())
	case <-time.After(patience):
		require.Fail(t, "nobody has the task")
	}
	require.Equal(t, accepted, holder.report(probed(&tcoderv1.LeaseRef{TaskId: lost.GetTaskId(), Attempt: 2})))
	require.Equal(t, pipeline.JobRunning, c.job(t, job.ID).State)
}

// TestCancel: a canceled job's attempts are stopped within a second, whichever
// replica holds the stream.
func TestCancel(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{Slots: 2})
	canceled, other := c.submit(t), c.submit(t)
	refs := map[string]*tcoderv1.LeaseRef{}
	for range 2 {
		a := w.assignment()
		refs[a.GetJobId()] = a.GetLease()
	}
	began := time.Now()
	_, err := c.store.CancelJob(t.Context(), canceled.ID)
	require.NoError(t, err)
	stop := expect(w, (*tcoderv1.AttachResponse).GetStop)
	require.Less(t, time.Since(began), time.Second)
	require.Equal(t, refs[canceled.ID].GetTaskId(), stop.GetLease().GetTaskId())
	require.Equal(t, stale, w.report(probed(stop.GetLease())))
	require.Equal(t, accepted, w.report(probed(refs[other.ID])))
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

// TestSpread: tasks go to the worker with the most free slots.
func TestSpread(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	a, _ := r.attach(t, &tcoderv1.Hello{Slots: 3})
	b, _ := r.attach(t, &tcoderv1.Hello{Slots: 3})
	for range 4 {
		c.submit(t)
	}
	for range 2 {
		a.assignment()
		b.assignment()
	}
	require.Empty(t, a.in)
	require.Empty(t, b.in)
}

// TestBacklog: workers that come find what waits, and a freed slot is filled
// at once, until the queue is empty.
func TestBacklog(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	const jobs = 20
	for range jobs {
		c.submit(t)
	}
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{Slots: 4})
	seen := map[string]bool{}
	for range jobs {
		a := w.assignment()
		seen[a.GetJobId()] = true
		w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{
			Report: failed(a.GetLease(), tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT),
		}})
	}
	require.Len(t, seen, jobs)
	stats, err := c.store.PoolStats(t.Context())
	require.NoError(t, err)
	require.Zero(t, stats.ReadyTasks)
}

// TestDrainWorker: a worker that is told to drain on another replica hears of
// it, gets nothing more, and may finish what it has.
func TestDrainWorker(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	holder, other := c.replica(t), c.replica(t)
	w, _ := holder.attach(t, &tcoderv1.Hello{Slots: 2})
	c.submit(t)
	ref := w.assignment().GetLease()
	res, err := other.api().DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: w.id})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.WorkerState_WORKER_STATE_DRAINING, res.GetWorker().GetState())
	expect(w, (*tcoderv1.AttachResponse).GetDrain)
	c.submit(t)
	quiet(w, (*tcoderv1.AttachResponse).GetAssignment)
	require.Equal(t, accepted, w.report(probed(ref)))
	require.NoError(t, w.stream.CloseRequest())
	require.Error(t, w.ends()) // io.EOF
	require.Eventually(t, func() bool {
		list, err := other.api().ListWorkers(t.Context(), &tcoderv1.ListWorkersRequest{})
		return err == nil && len(list.GetWorkers()) == 0
	}, patience, 5*time.Millisecond, "a drained worker that left is forgotten")

	_, err = other.api().DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: "nobody"})
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
}

// TestLeave: an idle worker may leave and gets nothing from then on; one that
// holds a task may not.
func TestLeave(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.IdleThreshold = time.Minute })
	w, welcome := r.attach(t, &tcoderv1.Hello{MachineId: "m1"})
	require.Equal(t, time.Minute, welcome.GetIdleThreshold().AsDuration())
	leave := &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Leave{Leave: &tcoderv1.LeaveRequest{}}}

	c.submit(t)
	ref := w.assignment().GetLease()
	w.send(leave)
	quiet(w, (*tcoderv1.AttachResponse).GetLeaveGranted)
	require.Equal(t, accepted, w.report(failed(ref, tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT)))
	w.send(leave)
	expect(w, (*tcoderv1.AttachResponse).GetLeaveGranted)
	c.submit(t)
	quiet(w, (*tcoderv1.AttachResponse).GetAssignment)

	_, welcome = r.attach(t, &tcoderv1.Hello{})
	require.Nil(t, welcome.GetIdleThreshold(), "a self-managed worker stays")
}

// TestServerStops: a control plane that stops ends its streams, told so, and
// takes nothing away; another one goes on with the same attempts.
func TestServerStops(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t), c.replica(t)
	w, _ := first.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	ref := w.assignment().GetLease()
	first.drain()
	err := w.ends()
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING, reasonOf(t, err))
	<-first.ended
	late := first.connect(t, &tcoderv1.Hello{})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING, reasonOf(t, late.ends()))

	w, welcome := second.attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{ref}})
	require.Len(t, welcome.GetKept(), 1)
	require.Equal(t, accepted, w.report(probed(ref)))
}

func reasonOf(t *testing.T, err error) tcoderv1.ErrorReason {
	t.Helper()
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	for _, d := range coded.Details() {
		value, err := d.Value()
		require.NoError(t, err)
		if detail, ok := value.(*tcoderv1.ErrorDetail); ok {
			return detail.GetReason()
		}
	}
	return 0
}

// TestReplaced: of two streams of a worker the newer one counts, on whichever
// replica.
func TestReplaced(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t), c.replica(t)
	older, _ := first.attach(t, &tcoderv1.Hello{WorkerId: "w1"})
	newer, _ := first.attach(t, &tcoderv1.Hello{WorkerId: "w1"})
	require.Error(t, older.ends())
	newest, _ := second.attach(t, &tcoderv1.Hello{WorkerId: "w1"})
	_, err := c.store.DrainWorker(t.Context(), "w1") // makes every replica look
	require.NoError(t, err)
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(newer.ends()))
	expect(newest, (*tcoderv1.AttachResponse).GetDrain)
}

// TestHeartbeat: heartbeats keep a lease, tell of a lost one, and renew the
// source's URL past half of its life.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) {
		cfg.Lease, cfg.Heartbeat, cfg.URLGrace = lease, 100*time.Millisecond, lease
	})
	sweep := func() pipeline.Swept {
		swept, err := c.store.Sweep(t.Context(), "test", time.Minute, lease, pipeline.DefaultRetryPolicy())
		require.NoError(t, err)
		return swept
	}
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	ref := w.assignment().GetLease()
	renewed := false
	require.Eventually(t, func() bool {
		require.Zero(t, sweep().Requeued)
		w.heartbeat(ref)
		ack := expect(w, (*tcoderv1.AttachResponse).GetHeartbeat)
		require.Empty(t, ack.GetLost())
		renewed = renewed || len(ack.GetRenewed()) == 1 && ack.GetRenewed()[0].GetSource().GetUrl() != ""
		return renewed && time.Since(c.job(t, job.ID).Times.Started) > 2*lease
	}, patience, 50*time.Millisecond)

	_, err := c.store.ReleaseTask(t.Context(), w.id, pipeline.LeaseRef{TaskID: ref.GetTaskId(), Attempt: 1})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		w.heartbeat(ref)
		return len(expect(w, (*tcoderv1.AttachResponse).GetHeartbeat).GetLost()) == 1
	}, patience, 50*time.Millisecond)
	require.EqualValues(t, 2, w.assignment().GetLease().GetAttempt(), "the slot of a lost lease is free")
}

// TestForgottenLease: a lease that its worker doesn't name is not kept alive
// for ever by its heartbeats.
func TestForgottenLease(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.Lease, cfg.Heartbeat = lease, 100*time.Millisecond })
	w, _ := r.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	require.EqualValues(t, 1, w.assignment().GetLease().GetAttempt())
	require.Eventually(t, func() bool {
		swept, err := c.store.Sweep(t.Context(), "test", time.Minute, lease, pipeline.DefaultRetryPolicy())
		require.NoError(t, err)
		w.heartbeat()
		return swept.Requeued == 1
	}, patience, 50*time.Millisecond)
}

// TestSilentWorker: a worker that says nothing for a lease is cut.
func TestSilentWorker(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.Lease = 200 * time.Millisecond })
	w, _ := r.attach(t, &tcoderv1.Hello{})
	require.Error(t, w.ends())
	require.Eventually(t, func() bool {
		workers, err := c.store.ListWorkers(t.Context())
		return err == nil && len(workers) == 1 && !workers[0].Attached
	}, patience, 5*time.Millisecond)
}

// TestDeafWorker: a worker that doesn't read is cut, and holds nobody up.
func TestDeafWorker(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	transport := r.transport.Clone()
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 14}
	defer transport.CloseIdleConnections()
	api := tcoderv1connect.NewPoolServiceClient(&http.Client{Transport: transport}, r.url)
	stream, err := api.Attach(t.Context())
	require.NoError(t, err)
	err = stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{
		Hello: &tcoderv1.Hello{WorkerId: "deaf", Slots: 1},
	}})
	ready := func() bool {
		workers, err := c.store.ListWorkers(t.Context())
		return err == nil && len(workers) == 1 && workers[0].Attached
	}
	require.Eventually(t, ready, patience, time.Millisecond)
	heartbeat := &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: &tcoderv1.Heartbeat{}}}
	for deadline := time.Now().Add(2 * patience); err == nil && time.Now().Before(deadline); {
		err = stream.Send(heartbeat)
	}
	require.Error(t, err, "it was never cut")
	require.Eventually(t, func() bool { return !ready() }, patience, 5*time.Millisecond)
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
}

// TestIncompatible: a stream that doesn't begin with Hello is told so.
func TestIncompatible(t *testing.T) {
	t.Parallel()
	r := newCell(t).replica(t)
	stream, err := r.api().Attach(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: &tcoderv1.Heartbeat{}}}))
	_, err = stream.Receive()
	require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE, reasonOf(t, err))
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

// TestView: the operators' view counts machines, workers, slots and tasks, and
// says why tasks wait.
func TestView(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	c.submit(t)
	view, err := r.api().GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 1, view.GetReadyTasks())
	require.NotNil(t, view.GetOldestReady())
	require.Equal(t, "No worker is attached, and this pool makes none.", view.GetHoldReason())

	reserved, err := c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: "m1", Provider: "process"}, 1)
	require.NoError(t, err)
	require.True(t, reserved)
	w, _ := r.attach(t, &tcoderv1.Hello{MachineId: "m1", Slots: 2})
	w.assignment()
	view, err = r.api().GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 1, 2, 1}, []uint32{view.GetMachines(), view.GetWorkers(), view.GetSlots(), view.GetBusySlots()})
	require.EqualValues(t, 1, view.GetLeasedTasks())
	require.Empty(t, view.GetHoldReason())
	machines, err := r.api().ListMachines(t.Context(), &tcoderv1.ListMachinesRequest{})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.MachineState_MACHINE_STATE_RUNNING, machines.GetMachines()[0].GetState())
	workers, err := r.api().ListWorkers(t.Context(), &tcoderv1.ListWorkersRequest{})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.WorkerState_WORKER_STATE_BUSY, workers.GetWorkers()[0].GetState())

	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(r.svc.Collector()))
	families, err := registry.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	delete(values, "tcoder_oldest_ready_seconds")
	require.Equal(t, map[string]float64{
		"tcoder_assignments_total probe": 1, "tcoder_dispatch_seconds": 1, "tcoder_queue_wait_seconds": 1,
		"tcoder_tasks ready": 0, "tcoder_tasks leased": 1, "tcoder_tasks delayed": 0, "tcoder_worker_sessions": 1,
	}, values)
}
