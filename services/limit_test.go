package services_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/job"
	"github.com/tcoder-dev/tcoder/services/upload"
)

// A project that has as many waiting jobs as it may is refused another one,
// in every protocol, with when to try again; other projects, and repeats of
// calls that were accepted, aren't. A job that starts makes room.
func TestWaitingLimit(t *testing.T) {
	t.Parallel()
	p := start(t, options{
		server: services.Config{APIKeys: map[string]string{"key-a": "alpha", "key-b": "beta"}},
		job:    job.Config{WaitingLimit: 2},
		upload: upload.Config{WaitingLimit: 2, SinglePutBytes: partBytes},
	})
	p.put("film", 10)
	accepted := &tcoderv1.CreateJobRequest{ObjectKey: "film", IdempotencyKey: "first"}
	large := &tcoderv1.CreateUploadRequest{Filename: "film.mov", SizeBytes: partBytes + 3}
	p.connect(bearer("key-a"))
	first, err := p.job.CreateJob(t.Context(), accepted)
	require.NoError(t, err)
	opened := p.create(large)
	require.Equal(t, 1, p.in.alive(t))

	for protocol, opts := range protocols() {
		p.connect(append(opts, bearer("key-a"))...)
		_, err := p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: "film"})
		detail := refused(t, err, connect.CodeResourceExhausted, tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL)
		require.Positive(t, detail.GetRetryAfter().AsDuration(), protocol)
		require.NotEmpty(t, detail.GetRemedy(), protocol)
		_, err = p.upload.CreateUpload(t.Context(), large)
		refused(t, err, connect.CodeResourceExhausted, tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL)
		again, err := p.job.CreateJob(t.Context(), accepted)
		require.NoError(t, err, protocol)
		require.Equal(t, first.GetJob().GetId(), again.GetJob().GetId())
	}
	require.Equal(t, 1, p.in.alive(t), "a refused upload leaves nothing in the store")

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/tcoder.v1.JobService/CreateJob",
		strings.NewReader(`{"objectKey": "film"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer key-a")
	res, err := p.h1.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusTooManyRequests, res.StatusCode)
	require.Equal(t, "5", res.Header.Get("Retry-After"))

	p.connect(bearer("key-b"))
	other, err := p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: "film"})
	require.NoError(t, err, "the limit is each project's own")
	_, err = p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: other.GetJob().GetId()})
	require.NoError(t, err)

	p.connect(bearer("key-a"))
	_, l := p.claim()
	require.Equal(t, first.GetJob().GetId(), l.Job.ID)
	second, err := p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: "film"})
	require.NoError(t, err, "a job that has started doesn't wait")

	cancel := func(id string) {
		t.Helper()
		_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
		require.NoError(t, err)
	}
	cancel(l.Job.ID)
	_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: l.Job.ID})
	detail := refused(t, err, connect.CodeResourceExhausted, tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL)
	require.Positive(t, detail.GetRetryAfter().AsDuration())
	cancel(second.GetJob().GetId())
	_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: l.Job.ID})
	require.NoError(t, err)
	cancel(opened.GetUpload().GetJobId())
}

// A job that waits because its project runs as many tasks as it may says so,
// with how many that are; one that waits for others says how many.
func TestWaitingIsExplained(t *testing.T) {
	t.Parallel()
	p := start(t, options{job: job.Config{RunningLimit: 1}})
	running, waiting := p.newJob(), p.newJob()
	worker := ulid.Make().String()
	session, _, err := p.store.AttachWorker(t.Context(), pipeline.Worker{ID: worker, Slots: 2}, lease)
	require.NoError(t, err)
	got := p.getJob(waiting.GetId()).GetWaiting()
	require.Equal(t, tcoderv1.WaitReason_WAIT_REASON_QUEUE, got.GetReason())
	require.Equal(t, uint64(1), got.GetPosition())
	require.Zero(t, got.GetRunningLimit())

	claimed, err := p.store.ClaimTasks(t.Context(), pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: worker, Session: session, Max: 2, Lease: lease, RunningLimit: 1,
	})
	require.NoError(t, err)
	require.Len(t, claimed.Leases, 1)
	require.Equal(t, running.GetId(), claimed.Leases[0].Job.ID)
	got = p.getJob(waiting.GetId()).GetWaiting()
	require.Equal(t, tcoderv1.WaitReason_WAIT_REASON_PROJECT_LIMIT, got.GetReason())
	require.Equal(t, uint32(1), got.GetRunningLimit())
}

// A retry that names the run it follows may be repeated: it starts one run,
// also after that one has ended. A run that the job never had is refused.
func TestRetryMayBeRepeated(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	id := p.newJob().GetId()
	cancel := func() {
		t.Helper()
		_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
		require.NoError(t, err)
	}
	cancel()
	retry := func(run uint32) *tcoderv1.Job {
		t.Helper()
		res, err := p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id, Run: run})
		require.NoError(t, err)

		return res.GetJob()
	}
	for range 3 {
		require.Equal(t, uint32(2), retry(1).GetRun())
	}
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, p.getJob(id).GetState())
	cancel()
	require.Equal(t, tcoderv1.JobState_JOB_STATE_CANCELED, retry(1).GetState())
	require.Equal(t, uint32(3), retry(2).GetRun())
	require.Equal(t, uint32(3), retry(1).GetRun())
	_, err := p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id, Run: 4})
	detail := refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID)
	require.Equal(t, "run", detail.GetFields()[0].GetField())
	_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id, Run: 3})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_TERMINAL)
}

// Many callers that retry one run at a time start one.
func TestRetriesAtATime(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	id := p.newJob().GetId()
	_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
	require.NoError(t, err)
	const callers = 8
	runs := make(chan uint32, callers)
	for range callers {
		go func() {
			res, err := p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id, Run: 1})
			if err != nil {
				t.Error(err)
			}
			runs <- res.GetJob().GetRun()
		}()
	}
	for range callers {
		require.Equal(t, uint32(2), <-runs)
	}
	require.Len(t, p.getJob(id).GetTasks(), 2, "a probe of each run")
}

// Failed jobs are listed by the reason of their failure, page by page, each
// once, newest first, while others fail and are retried.
func TestListByReason(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	fail := func(reason pipeline.Reason) string {
		t.Helper()
		id := p.newJob().GetId()
		worker, l := p.claim()
		_, err := p.store.FailTask(t.Context(), pipeline.TaskFault{
			Ref: l.Ref, WorkerID: worker, Class: pipeline.FaultInput, Retry: pipeline.DefaultRetryPolicy(),
			Failure: pipeline.Failure{Reason: reason, Message: "no"},
		})
		require.NoError(t, err)

		return id
	}
	var corrupt []string
	for range 3 {
		corrupt = append(corrupt, fail(pipeline.ReasonInputCorrupt))
		fail(pipeline.ReasonInputNotMedia)
	}
	slices.Reverse(corrupt)
	canceled := p.newJob().GetId()
	_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: canceled})
	require.NoError(t, err)

	list := func(req *tcoderv1.ListJobsRequest, between func()) []string {
		t.Helper()
		var ids []string
		for {
			res, err := p.job.ListJobs(t.Context(), req)
			require.NoError(t, err)
			for _, j := range res.GetJobs() {
				ids = append(ids, j.GetId())
				require.Contains(t, req.GetReasons(), j.GetFailure().GetReason())
			}
			if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
				return ids
			}
			between()
		}
	}
	reasons := []tcoderv1.ErrorReason{tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT}
	got := list(&tcoderv1.ListJobsRequest{Reasons: reasons, PageSize: 1}, func() { fail(pipeline.ReasonInputCorrupt) })
	require.Equal(t, corrupt, got)
	failed := []tcoderv1.JobState{tcoderv1.JobState_JOB_STATE_FAILED}
	require.Len(t, list(&tcoderv1.ListJobsRequest{Reasons: reasons, States: failed, PageSize: 2}, func() {}), 5)
	both := []tcoderv1.ErrorReason{reasons[0], tcoderv1.ErrorReason_ERROR_REASON_CANCELED}
	require.Len(t, list(&tcoderv1.ListJobsRequest{Reasons: both}, func() {}), 6)
	require.Empty(t, list(&tcoderv1.ListJobsRequest{Reasons: both, States: []tcoderv1.JobState{tcoderv1.JobState_JOB_STATE_RUNNING}}, func() {}))

	res, err := p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{Reasons: reasons, PageSize: 1})
	require.NoError(t, err)
	_, err = p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{Reasons: both, PageToken: res.GetNextPageToken()})
	refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID)
}

// A list by a reason that few jobs have ends each page after so many that it
// looked at, with a token to go on: however many there are, a call is bounded.
func TestListByReasonIsBounded(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	rare := p.newJob()
	worker, l := p.claim()
	_, err := p.store.FailTask(t.Context(), pipeline.TaskFault{
		Ref: l.Ref, WorkerID: worker, Class: pipeline.FaultInput, Retry: pipeline.DefaultRetryPolicy(),
		Failure: pipeline.Failure{Reason: pipeline.ReasonQuarantined, Message: "no"},
	})
	require.NoError(t, err)
	for range 1100 {
		j, err := p.store.CreateJob(t.Context(), pipeline.Job{ID: ulid.Make().String(), Project: pipeline.DefaultProject},
			pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
		require.NoError(t, err)
		_, err = p.store.CancelJob(t.Context(), j.ID)
		require.NoError(t, err)
	}
	req := &tcoderv1.ListJobsRequest{Reasons: []tcoderv1.ErrorReason{tcoderv1.ErrorReason_ERROR_REASON_QUARANTINED}}
	res, err := p.job.ListJobs(t.Context(), req)
	require.NoError(t, err)
	require.Empty(t, res.GetJobs())
	require.NotEmpty(t, res.GetNextPageToken())
	req.PageToken = res.GetNextPageToken()
	res, err = p.job.ListJobs(t.Context(), req)
	require.NoError(t, err)
	require.Len(t, res.GetJobs(), 1)
	require.Equal(t, rare.GetId(), res.GetJobs()[0].GetId())
	require.Empty(t, res.GetNextPageToken())
}
