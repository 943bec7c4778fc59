package pool_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/pool"
)

// TestAssemble: a file beside a stream is put together once the segments are
// committed, of the objects that were committed; its worker reads these, and
// nothing else, also after a reconnect to another replica; and a file that
// has other frames is refused.
func TestAssemble(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]uint64{"right": 0, "a frame too many": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assemble(t, extra)
		})
	}
}

func assemble(t *testing.T, extra uint64) {
	t.Helper()
	c := newCell(t)
	r, second := c.replica(t), c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submitSpec(t, media.Spec{Outputs: []media.OutputSpec{
		{Name: "mp4", Kind: media.KindMP4, Qualities: []string{"360p"}},
		{Name: "hls", Kind: media.KindHLS, Qualities: []string{"360p"}},
	}})
	require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
	encode := w.assignment()
	require.Equal(t, "hls", encode.GetEncode().GetOutput().GetName())
	require.Equal(t, pipeline.TaskBlocked, c.job(t, job.ID).Tasks[2].State)
	made, files := w.encode(encode)
	w.upload(made, files)
	require.Equal(t, accepted, w.report(made))

	a := w.assignment()
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ASSEMBLE, a.GetKind())
	work := a.GetAssemble()
	var names []string
	var pieces []*tcoderv1.EncodedObject
	for _, piece := range work.GetVideo() {
		names = append(names, piece.GetName())
		pieces = append(pieces, &tcoderv1.EncodedObject{Name: piece.GetName(), SizeBytes: piece.GetSizeBytes()})
	}
	require.Equal(t, []string{"hls/t1a1/360p/init.mp4", "hls/t1a1/360p/00000.m4s", "hls/t1a1/360p/00001.m4s", "hls/t1a1/360p/00002.m4s"}, names)
	require.Empty(t, work.GetAudio())
	require.EqualValues(t, 250, work.GetFrameCount())

	// On another replica, which has to find out what the task is about.
	w.cut()
	again, welcome := second.attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{a.GetLease()}})
	require.Len(t, welcome.GetKept(), 1)
	answer := again.signRead(a.GetLease(), pieces...)
	require.Nil(t, answer.GetRefused())
	for _, signed := range answer.GetRequests() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, signed.GetUrl(), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, do(t, req))
	}
	other := &tcoderv1.EncodedObject{Name: "hls/t1a1/360p/00003.m4s", SizeBytes: 1}
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, again.signRead(a.GetLease(), other).GetRefused().GetReason())

	file := &tcoderv1.EncodedObject{Name: "360p.mp4", SizeBytes: 4, ContentType: "video/mp4"}
	signed := again.sign(a.GetLease(), file)
	require.Nil(t, signed.GetRefused())
	require.Equal(t, http.StatusOK, put(t, signed.GetRequests()[0], []byte("file")))
	result := made.GetEncode().GetRenditions()[0].GetResult()
	result.FrameCount += extra
	report := &tcoderv1.TaskReport{Lease: a.GetLease(), End: &tcoderv1.TaskReport_Encode{Encode: &tcoderv1.EncodeResult{
		Renditions: []*tcoderv1.EncodedRendition{{Result: result, File: file}},
	}}}
	if extra > 0 {
		require.Equal(t, rejected, again.report(report))
		return
	}
	require.Equal(t, accepted, again.report(report))
	require.Eventually(t, func() bool { return c.job(t, job.ID).State == pipeline.JobCompleted }, patience, 5*time.Millisecond)
	outputs := c.job(t, job.ID).Outputs
	require.Equal(t, "mp4", outputs[0].Name)
	require.Equal(t, "360p.mp4", outputs[0].Entry)
	require.Contains(t, outputs[0].Objects[0].Key, "/mp4/t2a1/360p.mp4")
}

func (w *worker) signRead(ref *tcoderv1.LeaseRef, pieces ...*tcoderv1.EncodedObject) *tcoderv1.SignResponse {
	w.t.Helper()
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{
		Sign: &tcoderv1.SignRequest{RequestId: 8, Lease: ref, Objects: pieces, Read: true},
	}})
	answer := expect(w, (*tcoderv1.AttachResponse).GetSign)
	require.EqualValues(w.t, 8, answer.GetRequestId())
	return answer
}

// TestFileIsNotPublished: a job whose only output is a file that one attempt
// made is completed by its result; there is nothing to publish.
func TestFileIsNotPublished(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(_ *pool.Config, d *pool.Deps) {
		d.Publish = func(context.Context, string) error {
			t.Error("it is published")
			return nil
		}
	})
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submitSpec(t, media.Spec{Outputs: []media.OutputSpec{{Name: "mp4", Kind: media.KindMP4, Qualities: []string{"360p"}}}})
	require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
	a := w.assignment()
	file := &tcoderv1.EncodedObject{Name: "360p.mp4", SizeBytes: 4, ContentType: "video/mp4"}
	signed := w.sign(a.GetLease(), file)
	require.Nil(t, signed.GetRefused())
	require.Equal(t, http.StatusOK, put(t, signed.GetRequests()[0], []byte("file")))
	made, _ := w.encode(a)
	report := &tcoderv1.TaskReport{Lease: a.GetLease(), End: &tcoderv1.TaskReport_Encode{Encode: &tcoderv1.EncodeResult{
		Renditions: []*tcoderv1.EncodedRendition{{Result: made.GetEncode().GetRenditions()[0].GetResult(), File: file}},
	}}}
	for range 2 { // and once more
		require.Equal(t, accepted, w.report(report))
		done := c.job(t, job.ID)
		require.Equal(t, pipeline.JobCompleted, done.State)
		require.Len(t, done.Outputs, 1)
		require.Equal(t, "360p.mp4", done.Outputs[0].Entry)
		require.Contains(t, done.Outputs[0].Objects[0].Key, "/mp4/t1a1/360p.mp4")
	}
}
