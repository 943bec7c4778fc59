package services_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/upload"
)

// partBytes is the smallest part that the plan makes.
const partBytes = 16 << 20

// multipart makes everything above 1 MiB a multipart upload.
func multipart() options { return options{upload: upload.Config{SinglePutBytes: 1 << 20}} }

func (p *plane) create(req *tcoderv1.CreateUploadRequest) *tcoderv1.CreateUploadResponse {
	p.t.Helper()
	res, err := p.upload.CreateUpload(p.t.Context(), req)
	require.NoError(p.t, err)

	return res
}

func (p *plane) complete(id string, parts ...*tcoderv1.UploadedPart) (*tcoderv1.CompleteUploadResponse, error) {
	return p.upload.CompleteUpload(p.t.Context(), &tcoderv1.CompleteUploadRequest{UploadId: id, Parts: parts})
}

func (p *plane) getJob(id string) *tcoderv1.Job {
	p.t.Helper()
	res, err := p.job.GetJob(p.t.Context(), &tcoderv1.GetJobRequest{JobId: id})
	require.NoError(p.t, err)

	return res.GetJob()
}

// A small file goes up in one PUT that takes exactly what was declared, once;
// completing it starts the job, and doing so again changes nothing.
func TestSinglePut(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	opened := p.create(&tcoderv1.CreateUploadRequest{
		Filename: "clip.mp4", SizeBytes: 5, Priority: 7, Labels: map[string]string{"k": "v"},
		Spec: &tcoderv1.JobSpec{Preset: "hls-adaptive"},
	})
	u := opened.GetUpload()
	require.Equal(t, tcoderv1.UploadState_UPLOAD_STATE_OPEN, u.GetState())
	require.Equal(t, "application/octet-stream", u.GetContentType())
	require.Equal(t, "in/default/"+u.GetId()+"/source", u.GetObjectKey())
	require.Empty(t, opened.GetParts())
	require.Equal(t, tcoderv1.JobState_JOB_STATE_UPLOADING, p.getJob(u.GetJobId()).GetState())
	require.Equal(t, tcoderv1.WaitReason_WAIT_REASON_UPLOAD, p.getJob(u.GetJobId()).GetWaiting().GetReason())

	_, err := p.complete(u.GetId())
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_INCOMPLETE)
	status, _ := p.send(opened.GetPut(), []byte("123456"))
	require.Equal(t, http.StatusForbidden, status, "another length than declared")
	status, etag := p.send(opened.GetPut(), []byte("12345"))
	require.Equal(t, http.StatusOK, status)
	status, _ = p.send(opened.GetPut(), []byte("54321"))
	require.Equal(t, http.StatusPreconditionFailed, status, "what is there can't be replaced")

	_, err = p.complete(u.GetId(), &tcoderv1.UploadedPart{PartNumber: 1, Etag: etag})
	refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_PART_LIST_INVALID)
	first, err := p.complete(u.GetId())
	require.NoError(t, err)
	job := first.GetJob()
	require.Equal(t, tcoderv1.UploadState_UPLOAD_STATE_COMPLETED, first.GetUpload().GetState())
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, job.GetState())
	require.Equal(t, etag, job.GetSource().GetEtag())
	require.Equal(t, uint64(5), job.GetSource().GetSizeBytes())
	require.Equal(t, "clip.mp4", job.GetSource().GetFilename())
	require.Equal(t, u.GetId(), job.GetSource().GetUploadId())
	require.Equal(t, "hls-adaptive", job.GetSpec().GetPreset())
	require.Equal(t, int32(7), job.GetPriority())
	require.Equal(t, map[string]string{"k": "v"}, job.GetLabels())
	require.Len(t, job.GetTasks(), 1)
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_PROBE, job.GetTasks()[0].GetKind())

	again, err := p.complete(u.GetId())
	require.NoError(t, err)
	require.Equal(t, job.GetSequence(), again.GetJob().GetSequence())
	_, err = p.upload.SignUploadParts(t.Context(), &tcoderv1.SignUploadPartsRequest{UploadId: u.GetId(), PartNumbers: []uint32{1}})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_COMPLETED)
	_, err = p.upload.AbortUpload(t.Context(), &tcoderv1.AbortUploadRequest{UploadId: u.GetId()})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_COMPLETED)
}

// A large file goes up in equal parts, in any order, resumed from what the
// store holds; only the exact parts complete it.
func TestMultipart(t *testing.T) {
	t.Parallel()
	p := start(t, multipart())
	opened := p.create(&tcoderv1.CreateUploadRequest{Filename: "film.mov", SizeBytes: partBytes + 3, ContentType: "video/quicktime"})
	u, parts := opened.GetUpload(), opened.GetParts()
	require.Nil(t, opened.GetPut())
	require.Equal(t, uint64(partBytes), u.GetPartSizeBytes())
	require.Equal(t, uint32(2), u.GetPartCount())
	require.Len(t, parts, 2)
	require.Equal(t, uint64(partBytes), parts[1].GetOffsetBytes())
	require.Equal(t, uint64(3), parts[1].GetSizeBytes())

	status, last := p.send(parts[1].GetRequest(), []byte("end"))
	require.Equal(t, http.StatusOK, status)
	held, err := p.upload.GetUpload(t.Context(), &tcoderv1.GetUploadRequest{UploadId: u.GetId()})
	require.NoError(t, err)
	require.Len(t, held.GetParts(), 1)
	require.Equal(t, &tcoderv1.UploadedPart{PartNumber: 2, Etag: last, SizeBytes: 3}, &tcoderv1.UploadedPart{
		PartNumber: held.GetParts()[0].GetPartNumber(), Etag: held.GetParts()[0].GetEtag(), SizeBytes: held.GetParts()[0].GetSizeBytes(),
	})
	_, err = p.complete(u.GetId())
	detail := refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_INCOMPLETE)
	require.Equal(t, "1", detail.GetMetadata()["missing_parts"])

	signed, err := p.upload.SignUploadParts(t.Context(), &tcoderv1.SignUploadPartsRequest{UploadId: u.GetId(), PartNumbers: []uint32{1}})
	require.NoError(t, err)
	status, _ = p.send(signed.GetParts()[0].GetRequest(), []byte("short"))
	require.Equal(t, http.StatusForbidden, status, "another length than planned")
	status, first := p.send(signed.GetParts()[0].GetRequest(), bytes.Repeat([]byte("x"), partBytes))
	require.Equal(t, http.StatusOK, status)
	_, err = p.upload.SignUploadParts(t.Context(), &tcoderv1.SignUploadPartsRequest{UploadId: u.GetId(), PartNumbers: []uint32{1, 3}})
	detail = refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_PART_LIST_INVALID)
	require.Equal(t, "part_numbers[1]", detail.GetFields()[0].GetField())

	for name, list := range map[string][]*tcoderv1.UploadedPart{
		"gap":       {{PartNumber: 1, Etag: first}},
		"duplicate": {{PartNumber: 1, Etag: first}, {PartNumber: 1, Etag: first}, {PartNumber: 2, Etag: last}},
		"unknown":   {{PartNumber: 1, Etag: first}, {PartNumber: 2, Etag: last}, {PartNumber: 3, Etag: last}},
		"wrong tag": {{PartNumber: 1, Etag: last}, {PartNumber: 2, Etag: last}},
	} {
		_, err := p.complete(u.GetId(), list...)
		require.Error(t, err, name)
		refused(t, err, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_PART_LIST_INVALID)
	}
	done, err := p.complete(u.GetId(), &tcoderv1.UploadedPart{PartNumber: 2, Etag: last}, &tcoderv1.UploadedPart{PartNumber: 1, Etag: first})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, done.GetJob().GetState())
	require.Equal(t, uint64(partBytes+3), done.GetJob().GetSource().GetSizeBytes())
	require.Zero(t, p.in.alive(t))
	held, err = p.upload.GetUpload(t.Context(), &tcoderv1.GetUploadRequest{UploadId: u.GetId()})
	require.NoError(t, err)
	require.Empty(t, held.GetParts())
}

// The repeat of a create gives the first upload with URLs that work, and
// leaves no second multipart upload behind; the key of another request is
// refused, and leaves none either.
func TestCreateUploadIsIdempotent(t *testing.T) {
	t.Parallel()
	p := start(t, multipart())
	req := &tcoderv1.CreateUploadRequest{Filename: "film.mov", SizeBytes: partBytes + 3, IdempotencyKey: "key-1"}
	first, second := p.create(req), p.create(req)
	require.Equal(t, first.GetUpload().GetId(), second.GetUpload().GetId())
	require.Equal(t, 1, p.in.alive(t))
	status, _ := p.send(second.GetParts()[1].GetRequest(), []byte("end"))
	require.Equal(t, http.StatusOK, status)

	other := &tcoderv1.CreateUploadRequest{Filename: "film.mov", SizeBytes: partBytes + 4, IdempotencyKey: "key-1"}
	_, err := p.upload.CreateUpload(t.Context(), other)
	refused(t, err, connect.CodeAlreadyExists, tcoderv1.ErrorReason_ERROR_REASON_IDEMPOTENCY_KEY_REUSED)
	require.Equal(t, 1, p.in.alive(t))

	_, err = p.upload.AbortUpload(t.Context(), &tcoderv1.AbortUploadRequest{UploadId: first.GetUpload().GetId()})
	require.NoError(t, err)
	ended := p.create(req)
	require.Equal(t, tcoderv1.UploadState_UPLOAD_STATE_ABORTED, ended.GetUpload().GetState())
	require.Empty(t, ended.GetParts(), "an upload that ended has nothing to send")
}

// Other bytes than declared fail the upload and its job at once, and are
// removed.
func TestSizeMismatch(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	u := p.create(&tcoderv1.CreateUploadRequest{Filename: "clip.mp4", SizeBytes: 5}).GetUpload()
	p.put(u.GetObjectKey(), 4)
	_, err := p.complete(u.GetId())
	detail := refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_SIZE_MISMATCH)
	require.Equal(t, map[string]string{"upload_id": u.GetId(), "declared_bytes": "5", "actual_bytes": "4"}, detail.GetMetadata())
	_, err = p.in.Head(t.Context(), u.GetObjectKey())
	require.ErrorIs(t, err, objectstore.ErrNotFound)
	job := p.getJob(u.GetJobId())
	require.Equal(t, tcoderv1.JobState_JOB_STATE_FAILED, job.GetState())
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_SIZE_MISMATCH, job.GetFailure().GetReason())
	_, err = p.complete(u.GetId())
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_SIZE_MISMATCH)
	_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: job.GetId()})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING)
}

// An aborted upload leaves no bytes and cancels its job, as often as it is
// aborted.
func TestAbortUpload(t *testing.T) {
	t.Parallel()
	p := start(t, multipart())
	opened := p.create(&tcoderv1.CreateUploadRequest{Filename: "film.mov", SizeBytes: partBytes + 3})
	u := opened.GetUpload()
	status, _ := p.send(opened.GetParts()[1].GetRequest(), []byte("end"))
	require.Equal(t, http.StatusOK, status)
	for range 2 {
		res, err := p.upload.AbortUpload(t.Context(), &tcoderv1.AbortUploadRequest{UploadId: u.GetId()})
		require.NoError(t, err)
		require.Equal(t, tcoderv1.UploadState_UPLOAD_STATE_ABORTED, res.GetUpload().GetState())
	}
	require.Zero(t, p.in.alive(t))
	require.Equal(t, tcoderv1.JobState_JOB_STATE_CANCELED, p.getJob(u.GetJobId()).GetState())
	_, err := p.complete(u.GetId())
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_ABORTED)
	_, err = p.upload.SignUploadParts(t.Context(), &tcoderv1.SignUploadPartsRequest{UploadId: u.GetId(), PartNumbers: []uint32{1}})
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_ABORTED)
}

// Canceling a job whose upload is open removes what was stored of it.
func TestCancelWhileUploading(t *testing.T) {
	t.Parallel()
	p := start(t, multipart())
	u := p.create(&tcoderv1.CreateUploadRequest{Filename: "film.mov", SizeBytes: partBytes + 3}).GetUpload()
	res, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: u.GetJobId()})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.JobState_JOB_STATE_CANCELED, res.GetJob().GetState())
	require.Zero(t, p.in.alive(t))
	got, err := p.upload.GetUpload(t.Context(), &tcoderv1.GetUploadRequest{UploadId: u.GetId()})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.UploadState_UPLOAD_STATE_ABORTED, got.GetUpload().GetState())
}

// What the sweeper does with an upload past its deadline: bytes that are all
// there complete it though nobody said so; otherwise it expires, with what
// was stored of it, and its job fails.
func TestSettle(t *testing.T) {
	t.Parallel()
	p := start(t, multipart())
	whole := p.create(&tcoderv1.CreateUploadRequest{Filename: "whole.mp4", SizeBytes: 5})
	status, _ := p.send(whole.GetPut(), []byte("12345"))
	require.Equal(t, http.StatusOK, status)
	wrong := p.create(&tcoderv1.CreateUploadRequest{Filename: "wrong.mp4", SizeBytes: 5})
	p.put(wrong.GetUpload().GetObjectKey(), 6)
	half := p.create(&tcoderv1.CreateUploadRequest{Filename: "half.mp4", SizeBytes: partBytes + 3})
	status, _ = p.send(half.GetParts()[1].GetRequest(), []byte("end"))
	require.Equal(t, http.StatusOK, status)
	empty := p.create(&tcoderv1.CreateUploadRequest{Filename: "empty.mp4", SizeBytes: 5})

	settle := func(u *tcoderv1.Upload) *tcoderv1.Job {
		t.Helper()
		for range 2 {
			require.NoError(t, p.uploads.Settle(t.Context(), u.GetId()))
		}

		return p.getJob(u.GetJobId())
	}
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, settle(whole.GetUpload()).GetState())
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_SIZE_MISMATCH, settle(wrong.GetUpload()).GetFailure().GetReason())
	for _, opened := range []*tcoderv1.CreateUploadResponse{half, empty} {
		job := settle(opened.GetUpload())
		require.Equal(t, tcoderv1.JobState_JOB_STATE_FAILED, job.GetState())
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_EXPIRED, job.GetFailure().GetReason())
		_, err := p.complete(opened.GetUpload().GetId())
		refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_EXPIRED)
		_, err = p.upload.SignUploadParts(t.Context(), &tcoderv1.SignUploadPartsRequest{UploadId: opened.GetUpload().GetId(), PartNumbers: []uint32{1}})
		refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_EXPIRED)
	}
	require.Zero(t, p.in.alive(t))
	require.NoError(t, p.uploads.Settle(t.Context(), "gone"))
}

// A URL stops working when it says; the upload itself goes on and gives fresh
// ones.
func TestExpiredURL(t *testing.T) {
	t.Parallel()
	p := start(t, options{upload: upload.Config{URLExpiry: time.Second}})
	req := &tcoderv1.CreateUploadRequest{Filename: "clip.mp4", SizeBytes: 5, IdempotencyKey: "key"}
	opened := p.create(req)
	expires := opened.GetPut().GetExpiresAt().AsTime().Add(1100 * time.Millisecond)
	require.Eventually(t, func() bool { return time.Now().After(expires) }, patience, tick)
	status, _ := p.send(opened.GetPut(), []byte("12345"))
	require.Equal(t, http.StatusForbidden, status)
	_, err := p.complete(opened.GetUpload().GetId())
	refused(t, err, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_INCOMPLETE)
	status, _ = p.send(p.create(req).GetPut(), []byte("12345"))
	require.Equal(t, http.StatusOK, status)
	_, err = p.complete(opened.GetUpload().GetId())
	require.NoError(t, err)
}

// Each bad create is refused at once with its reason and field, in every
// protocol, and leaves nothing behind.
func TestBadUploads(t *testing.T) {
	t.Parallel()
	p := start(t, options{upload: upload.Config{MaxSizeBytes: 2000, ProjectMaxSizeBytes: map[string]int64{"default": 1000}}})
	tests := map[string]struct {
		req    *tcoderv1.CreateUploadRequest
		reason tcoderv1.ErrorReason
		field  string
	}{
		"no name":         {&tcoderv1.CreateUploadRequest{SizeBytes: 1}, tcoderv1.ErrorReason_ERROR_REASON_FILENAME_INVALID, "filename"},
		"path":            {&tcoderv1.CreateUploadRequest{Filename: "../../etc/passwd", SizeBytes: 1}, tcoderv1.ErrorReason_ERROR_REASON_FILENAME_INVALID, "filename"},
		"long name":       {&tcoderv1.CreateUploadRequest{Filename: strings.Repeat("x", 256), SizeBytes: 1}, tcoderv1.ErrorReason_ERROR_REASON_FILENAME_INVALID, "filename"},
		"zero":            {&tcoderv1.CreateUploadRequest{Filename: "a.mp4"}, tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID, "size_bytes"},
		"oversized":       {&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 1001}, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_TOO_LARGE, "size_bytes"},
		"immense":         {&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 1<<64 - 1}, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_TOO_LARGE, "size_bytes"},
		"unknown preset":  {&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 1, Spec: &tcoderv1.JobSpec{Preset: "x"}}, tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_PRESET, "spec.preset"},
		"unknown quality": {&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 1, Spec: &tcoderv1.JobSpec{Qualities: []string{"720p", "999p"}}}, tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_QUALITY, "spec.qualities[1]"},
		"two qualities for one": {&tcoderv1.CreateUploadRequest{
			Filename: "a.mp4", SizeBytes: 1, Spec: &tcoderv1.JobSpec{Preset: "hls", Qualities: []string{"720p", "480p"}},
		}, tcoderv1.ErrorReason_ERROR_REASON_SPEC_INVALID, "spec.qualities"},
		"content type": {&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 1, ContentType: "a\r\nb"}, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, "content_type"},
		"priority":     {&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 1, Priority: 101}, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, "priority"},
		"output kind": {&tcoderv1.CreateUploadRequest{
			Filename: "a.mp4", SizeBytes: 1, Spec: &tcoderv1.JobSpec{Outputs: []*tcoderv1.OutputSpec{{Name: "a"}}},
		}, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, "spec.outputs[0].kind"},
	}
	for protocol, opts := range protocols() {
		p.connect(opts...)
		for name, tt := range tests {
			_, err := p.upload.CreateUpload(t.Context(), tt.req)
			require.Error(t, err, "%s, %s", protocol, name)
			detail := refused(t, err, connect.CodeInvalidArgument, tt.reason)
			require.Equal(t, tt.field, detail.GetFields()[0].GetField(), "%s, %s", protocol, name)
			require.NotEmpty(t, detail.GetRemedy())
		}
	}
	p.connect()
	list, err := p.job.ListJobs(t.Context(), &tcoderv1.ListJobsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetJobs())
}

// An upload that isn't there, or is another project's, is not found by any
// call.
func TestForeignUploads(t *testing.T) {
	t.Parallel()
	p := start(t, options{server: services.Config{APIKeys: map[string]string{"key-a": "alpha", "key-b": "beta"}}})
	p.connect(bearer("key-a"))
	u := p.create(&tcoderv1.CreateUploadRequest{Filename: "a.mp4", SizeBytes: 5}).GetUpload()
	require.Equal(t, "alpha", u.GetProject())
	p.connect(bearer("key-b"))
	for _, id := range []string{u.GetId(), "01JD0000000000000000000000", "x"} {
		_, err := p.upload.GetUpload(t.Context(), &tcoderv1.GetUploadRequest{UploadId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
		_, err = p.complete(id)
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
		_, err = p.upload.AbortUpload(t.Context(), &tcoderv1.AbortUploadRequest{UploadId: id})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
		_, err = p.upload.SignUploadParts(t.Context(), &tcoderv1.SignUploadPartsRequest{UploadId: id, PartNumbers: []uint32{1}})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
	}
	stored, err := p.store.GetUpload(t.Context(), u.GetId())
	require.NoError(t, err)
	require.Equal(t, pipeline.UploadOpen, stored.State)
}
