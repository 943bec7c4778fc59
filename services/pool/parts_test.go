package pool_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/pool"
)

func (w *worker) step(ref *tcoderv1.LeaseRef, object *tcoderv1.EncodedObject, step *tcoderv1.PartsStep) *tcoderv1.SignResponse {
	w.t.Helper()
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{
		Sign: &tcoderv1.SignRequest{RequestId: 8, Lease: ref, Objects: []*tcoderv1.EncodedObject{object}, Parts: step},
	}})
	return expect(w, (*tcoderv1.AttachResponse).GetSign)
}

// uploadPart writes a part and returns its ETag.
func uploadPart(t *testing.T, signed *tcoderv1.SignedRequest, body []byte) (status int, etag string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), signed.GetMethod(), signed.GetUrl(), bytes.NewReader(body))
	require.NoError(t, err)
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode, response.Header.Get("ETag")
}

// TestParts: a worker writes an object that is too large for one PUT in parts
// that the control plane signs and joins, below its attempt's folder; it can
// give it up, and once its attempt is over it can't complete it.
func TestParts(t *testing.T) {
	t.Parallel()
	const part = 5 << 20
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.MaxPutBytes = part })
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
	encode := w.assignment()
	require.EqualValues(t, part, encode.GetMaxPutBytes())
	ref, content := encode.GetLease(), bytes.Repeat([]byte("0123456789"), (part+70_000)/10)
	object := &tcoderv1.EncodedObject{Name: "360p.mp4", SizeBytes: uint64(len(content)), ContentType: "video/mp4"}
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, w.sign(ref, object).GetRefused().GetReason(), "in one PUT")

	begun := w.step(ref, object, &tcoderv1.PartsStep{})
	require.Nil(t, begun.GetRefused())
	require.EqualValues(t, part, begun.GetParts().GetPartSizeBytes())
	id := begun.GetParts().GetUploadId()
	beyond := w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, First: 2, Count: 2})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, beyond.GetRefused().GetReason(), "there are two")
	signed := w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, First: 1, Count: 2}).GetRequests()
	require.Len(t, signed, 2)
	status, _ := uploadPart(t, signed[1], content[:10])
	require.Equal(t, http.StatusForbidden, status, "another size")
	_, first := uploadPart(t, signed[0], content[:part])
	_, second := uploadPart(t, signed[1], content[part:])
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID,
		w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, Etags: []string{second, first}}).GetRefused().GetReason())
	for range 2 { // the second is said again, because the answer was lost
		require.Nil(t, w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, Etags: []string{first, second}}).GetRefused())
	}
	key := media.OutputPrefix(job.Project, job.ID, encode.GetEncode().GetOutput().GetName()) + media.AttemptDir(1, 1) + "/360p.mp4"
	info, err := c.out.Head(t.Context(), key)
	require.NoError(t, err)
	require.EqualValues(t, len(content), info.SizeBytes)

	// One that is given up.
	object.Name = "240p.mp4"
	id = w.step(ref, object, &tcoderv1.PartsStep{}).GetParts().GetUploadId()
	require.Nil(t, w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, Abort: true}).GetRefused())
	key = media.OutputPrefix(job.Project, job.ID, encode.GetEncode().GetOutput().GetName()) + media.AttemptDir(1, 1) + "/240p.mp4"
	_, err = c.out.ListParts(t.Context(), key, id)
	require.ErrorIs(t, err, objectstore.ErrUploadNotFound)

	// The attempt ends behind the back of the session.
	id = w.step(ref, object, &tcoderv1.PartsStep{}).GetParts().GetUploadId()
	signed = w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, First: 1, Count: 2}).GetRequests()
	_, first = uploadPart(t, signed[0], content[:part])
	_, second = uploadPart(t, signed[1], content[part:])
	_, err = c.store.FailTask(t.Context(), pipeline.TaskFault{
		Ref: pipeline.LeaseRef{TaskID: ref.GetTaskId(), Attempt: 1}, WorkerID: w.id, Class: pipeline.FaultUnknown,
		Failure: pipeline.Failure{Reason: pipeline.ReasonEncodeFailed}, Retry: pipeline.RetryPolicy{MaxFailures: 4, Backoff: time.Hour, MaxBackoff: time.Hour},
	})
	require.NoError(t, err)
	late := w.step(ref, object, &tcoderv1.PartsStep{UploadId: id, Etags: []string{first, second}})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_LEASE_LOST, late.GetRefused().GetReason())
	_, err = c.out.Head(t.Context(), key)
	require.ErrorIs(t, err, objectstore.ErrNotFound)
}
