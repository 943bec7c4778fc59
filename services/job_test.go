package services_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/job"
)

// A job starts on an object that is there, with what the store says of it,
// and its idempotency key gives it back.
func TestCreateJob(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	p.put("films/köln.mp4", 9)
	req := &tcoderv1.CreateJobRequest{
		ObjectKey: "films/köln.mp4", IdempotencyKey: "key", Priority: -3, Labels: map[string]string{"a": "b"},
		Spec: &tcoderv1.JobSpec{Preset: "hls", Audio: &tcoderv1.AudioSettings{Disabled: new(true)}},
	}
	first, err := p.job.CreateJob(t.Context(), req)
	require.NoError(t, err)
	j := first.GetJob()
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, j.GetState())
	require.Equal(t, "köln.mp4", j.GetSource().GetFilename())
	require.Equal(t, uint64(9), j.GetSource().GetSizeBytes())
	require.NotEmpty(t, j.GetSource().GetEtag())
	require.Empty(t, j.GetSource().GetUploadId())
	require.Equal(t, int32(-3), j.GetPriority())
	require.Equal(t, "b", j.GetLabels()["a"])
	require.True(t, proto.Equal(req.GetSpec(), j.GetSpec()), "the spec is kept as it was asked")
	require.Equal(t, uint32(1), j.GetRun())
	require.NotNil(t, j.GetTimes().GetQueuedAt())

	again, err := p.job.CreateJob(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, j.GetId(), again.GetJob().GetId())
	req.Priority = 5
	_, err = p.job.CreateJob(t.Context(), req)
	refused(t, err, connect.CodeAlreadyExists, tcoderv1.ErrorReason_ERROR_REASON_IDEMPOTENCY_KEY_REUSED)
	require.Equal(t, tcoderv1.WaitReason_WAIT_REASON_NO_WORKER, p.getJob(j.GetId()).GetWaiting().GetReason())
}

// Each bad create is refused at once, with its reason.
func TestBadJobs(t *testing.T) {
	t.Parallel()
	p := start(t, options{job: job.Config{MaxSizeBytes: 100, ProjectMaxSizeBytes: map[string]int64{"default": 10}}})
	p.put("ok", 10)
	p.put("empty", 0)
	p.put("large", 11)
	p.put("in/other/01JD/source", 5)
	tests := map[string]struct {
		req    *tcoderv1.CreateJobRequest
		code   connect.Code
		reason tcoderv1.ErrorReason
	}{
		"no key":          {&tcoderv1.CreateJobRequest{}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID},
		"climbing key":    {&tcoderv1.CreateJobRequest{ObjectKey: "in/default/../other/x"}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID},
		"missing":         {&tcoderv1.CreateJobRequest{ObjectKey: "nothing"}, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_OBJECT_NOT_FOUND},
		"other project":   {&tcoderv1.CreateJobRequest{ObjectKey: "in/other/01JD/source"}, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_OBJECT_NOT_FOUND},
		"empty":           {&tcoderv1.CreateJobRequest{ObjectKey: "empty"}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID},
		"large":           {&tcoderv1.CreateJobRequest{ObjectKey: "large"}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_TOO_LARGE},
		"unknown preset":  {&tcoderv1.CreateJobRequest{ObjectKey: "ok", Spec: &tcoderv1.JobSpec{Preset: "x"}}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_PRESET},
		"unknown quality": {&tcoderv1.CreateJobRequest{ObjectKey: "ok", Spec: &tcoderv1.JobSpec{Qualities: []string{"1p"}}}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_QUALITY},
		"bad key":         {&tcoderv1.CreateJobRequest{ObjectKey: "ok", IdempotencyKey: "a b"}, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID},
	}
	for protocol, opts := range protocols() {
		p.connect(opts...)
		for name, tt := range tests {
			_, err := p.job.CreateJob(t.Context(), tt.req)
			require.Error(t, err, "%s, %s", protocol, name)
			refused(t, err, tt.code, tt.reason)
		}
	}
}

// Every call refuses a job that isn't there, and one of another project in
// the same words.
func TestForeignJobs(t *testing.T) {
	t.Parallel()
	p := start(t, options{server: services.Config{APIKeys: map[string]string{"key-a": "alpha", "key-b": "beta"}}})
	p.connect(bearer("key-a"))
	theirs := p.newJob().GetId()
	p.connect(bearer("key-b"))
	mine := p.newJob().GetId()
	for _, id := range []string{theirs, "01JD0000000000000000000000", "x"} {
		_, err := p.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
		_, err = p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
		_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
		_, err = p.job.DeleteJob(t.Context(), &tcoderv1.DeleteJobRequest{JobId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
		_, err = p.job.ListOutputObjects(t.Context(), &tcoderv1.ListOutputObjectsRequest{JobId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
		watched := p.watch(id, 0)
		require.Empty(t, watched.all())
		refused(t, watched.err(), connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
	}
	list, err := p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetJobs(), 1)
	require.Equal(t, mine, list.GetJobs()[0].GetId())
}

// Paging through a list gives every job that was there once, newest first,
// while others arrive; a token works for its own list only.
func TestListJobs(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	var want []string
	for range 5 {
		want = append(want, p.newJob().GetId())
	}
	slices.Reverse(want)
	var got []string
	req := &tcoderv1.ListJobsRequest{PageSize: 2}
	for {
		res, err := p.job.ListJobs(t.Context(), req)
		require.NoError(t, err)
		for _, j := range res.GetJobs() {
			got = append(got, j.GetId())
			require.Empty(t, j.GetTasks())
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
		p.newJob()
	}
	require.Equal(t, want, got)

	_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: want[1]})
	require.NoError(t, err)
	canceled := []tcoderv1.JobState{tcoderv1.JobState_JOB_STATE_CANCELED, tcoderv1.JobState_JOB_STATE_FAILED}
	res, err := p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{States: canceled})
	require.NoError(t, err)
	require.Len(t, res.GetJobs(), 1)
	require.Equal(t, want[1], res.GetJobs()[0].GetId())
	require.Empty(t, res.GetNextPageToken())

	res, err = p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{PageSize: 1})
	require.NoError(t, err)
	for _, bad := range []*tcoderv1.ListJobsRequest{
		{PageToken: res.GetNextPageToken(), States: canceled}, {PageToken: "x"}, {PageToken: res.GetNextPageToken() + "x"},
	} {
		_, err = p.job.ListJobs(t.Context(), bad)
		refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID)
	}
	_, err = p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{PageSize: 501})
	refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID)
}

// A job is canceled, retried and deleted in the states where that makes
// sense, and in no other.
func TestEndingJobs(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	id := p.newJob().GetId()
	retry := func() (*tcoderv1.RetryJobResponse, error) {
		return p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id})
	}
	_, err := retry()
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_TERMINAL)
	_, err = p.job.DeleteJob(t.Context(), &tcoderv1.DeleteJobRequest{JobId: id})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_TERMINAL)
	listed, err := p.job.ListOutputObjects(t.Context(), &tcoderv1.ListOutputObjectsRequest{JobId: id})
	require.NoError(t, err)
	require.Empty(t, listed.GetObjects())
	for range 2 {
		res, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
		require.NoError(t, err)
		require.Equal(t, tcoderv1.JobState_JOB_STATE_CANCELED, res.GetJob().GetState())
	}
	res, err := retry()
	require.NoError(t, err)
	require.Equal(t, uint32(2), res.GetJob().GetRun())
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, res.GetJob().GetState())

	p.planned()
	worker, l := p.claim()
	p.finish(worker, l)
	_, err = retry()
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_JOB_TERMINAL)
	_, err = p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_JOB_TERMINAL)
	_, err = p.job.DeleteJob(t.Context(), &tcoderv1.DeleteJobRequest{JobId: id})
	require.NoError(t, err)
	_, err = p.job.DeleteJob(t.Context(), &tcoderv1.DeleteJobRequest{JobId: id})
	refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
}

// A retry that could only fail again, because its source is gone or is
// another one now, is refused.
func TestRetryNeedsTheSource(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	for name, spoil := range map[string]func(key string){
		"removed":  func(key string) { require.NoError(t, p.in.Delete(t.Context(), key)) },
		"replaced": func(key string) { p.put(key, 11) },
	} {
		j := p.newJob()
		_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: j.GetId()})
		require.NoError(t, err)
		spoil(j.GetSource().GetObjectKey())
		_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: j.GetId()})
		detail := refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING)
		require.Equal(t, j.GetSource().GetObjectKey(), detail.GetMetadata()["object_key"])
		require.Contains(t, err.Error(), name)
		require.Equal(t, tcoderv1.JobState_JOB_STATE_CANCELED, p.getJob(j.GetId()).GetState())
	}
}

// The files of a completed job are listed page by page, with URLs that read
// them, of one output or of all.
func TestListOutputObjects(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	j := p.newJob()
	p.planned()
	worker, l := p.claim()
	object := func(output, name string) media.OutputObject {
		key := media.OutputPrefix("default", j.GetId(), output) + name
		require.NoError(t, p.out.Put(t.Context(), key, strings.NewReader(name), objectstore.PutOptions{}))

		return media.OutputObject{Name: name, Key: key, SizeBytes: int64(len(name)), ContentType: "text/plain"}
	}
	p.finish(worker, l,
		media.Output{Name: "hls", Kind: media.KindHLS, Entry: "a", Objects: []media.OutputObject{object("hls", "a"), object("hls", "b")}},
		media.Output{Name: "mp4", Kind: media.KindMP4, Entry: "c", Objects: []media.OutputObject{object("mp4", "c")}})

	list := func(req *tcoderv1.ListOutputObjectsRequest) (names []string, pages int) {
		t.Helper()
		req.JobId = j.GetId()
		for {
			res, err := p.job.ListOutputObjects(t.Context(), req)
			require.NoError(t, err)
			pages++
			for _, o := range res.GetObjects() {
				names = append(names, o.GetOutput()+"/"+o.GetObject().GetName())
				require.Equal(t, o.GetObject().GetName(), p.read(o.GetUrl()))
				require.NotNil(t, o.GetExpiresAt())
			}
			if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
				return names, pages
			}
		}
	}
	names, pages := list(&tcoderv1.ListOutputObjectsRequest{})
	require.Equal(t, []string{"hls/a", "hls/b", "mp4/c"}, names)
	require.Equal(t, 1, pages)
	names, pages = list(&tcoderv1.ListOutputObjectsRequest{PageSize: 1})
	require.Equal(t, []string{"hls/a", "hls/b", "mp4/c"}, names)
	require.Equal(t, 3, pages)
	names, pages = list(&tcoderv1.ListOutputObjectsRequest{PageSize: 1, Output: "hls"})
	require.Equal(t, []string{"hls/a", "hls/b"}, names)
	require.Equal(t, 2, pages)

	first, err := p.job.ListOutputObjects(t.Context(), &tcoderv1.ListOutputObjectsRequest{JobId: j.GetId(), PageSize: 1})
	require.NoError(t, err)
	_, err = p.job.ListOutputObjects(t.Context(), &tcoderv1.ListOutputObjectsRequest{
		JobId: j.GetId(), PageSize: 1, Output: "hls", PageToken: first.GetNextPageToken(),
	})
	refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID)
	done := p.getJob(j.GetId())
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, done.GetState())
	require.NotNil(t, done.GetTimeToComplete())
	require.Equal(t, "a", done.GetOutputs()[0].GetEntry())
}

func (p *plane) read(url string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(p.t, err)
	res, err := p.h1.Do(req)
	require.NoError(p.t, err)
	raw, err := io.ReadAll(res.Body)
	require.NoError(p.t, err)
	require.NoError(p.t, res.Body.Close())
	require.Equal(p.t, http.StatusOK, res.StatusCode)

	return string(raw)
}

// The presets are listed complete, so that a client sees what it would
// override, in every protocol.
func TestListPresets(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	for protocol, opts := range protocols() {
		p.connect(opts...)
		res, err := p.job.ListPresets(t.Context(), &tcoderv1.ListPresetsRequest{})
		require.NoError(t, err, protocol)
		var names []string
		for _, preset := range res.GetPresets() {
			names = append(names, preset.GetName())
			require.NotEmpty(t, preset.GetSpec().GetOutputs())
			require.NotNil(t, preset.GetSpec().GetVideo().Crf)
			require.NotNil(t, preset.GetSpec().GetAudio().Disabled)
		}
		require.Equal(t, []string{"default", "web-optimized", "hls", "hls-adaptive"}, names)
	}
}

// A failed attempt is told with its reason to whoever reads the job.
func TestAttemptsAreTold(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	j := p.newJob()
	worker, l := p.claim()
	_, err := p.store.FailTask(t.Context(), pipeline.TaskFault{
		Ref: l.Ref, WorkerID: worker, Class: pipeline.FaultInput, Retry: pipeline.DefaultRetryPolicy(),
		Failure: pipeline.Failure{Reason: pipeline.ReasonInputNotMedia, Message: "no media"},
	})
	require.NoError(t, err)
	got := p.getJob(j.GetId())
	require.Equal(t, tcoderv1.JobState_JOB_STATE_FAILED, got.GetState())
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, got.GetFailure().GetReason())
	attempt := got.GetTasks()[0].GetAttempts()[0]
	require.Equal(t, tcoderv1.AttemptOutcome_ATTEMPT_OUTCOME_FAILED, attempt.GetOutcome())
	require.Equal(t, "no media", attempt.GetFailure().GetMessage())
	require.Equal(t, worker, attempt.GetWorkerId())
}
