package services_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/sweep"
)

// sweep runs a sweeper on the plane's stores until the end of the test.
func (p *plane) sweep(retention time.Duration) {
	p.t.Helper()
	s := sweep.New(sweep.Config{
		Replica: "test", Lease: lease, Retry: pipeline.DefaultRetryPolicy(), Retention: retention,
	}, sweep.Deps{
		Store: p.store, In: p.in, Out: p.out, ExpireUpload: p.uploads.Settle,
		Publish: func(context.Context, string) error { return nil },
		Stream:  func(context.Context, string) error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		require.NoError(p.t, <-done)
	})
}

// uploaded uploads bytes and returns the job that starts with them.
func (p *plane) uploaded(data string) *tcoderv1.Job {
	p.t.Helper()
	opened := p.create(&tcoderv1.CreateUploadRequest{Filename: "clip.mp4", SizeBytes: uint64(len(data))})
	status, _ := p.send(opened.GetPut(), []byte(data))
	require.Equal(p.t, http.StatusOK, status)
	done, err := p.complete(opened.GetUpload().GetId())
	require.NoError(p.t, err)

	return done.GetJob()
}

// gone reports whether a bucket has no such object.
func gone(t *testing.T, bucket interface {
	Head(ctx context.Context, key string) (objectstore.ObjectInfo, error)
}, key string,
) bool {
	t.Helper()
	_, err := bucket.Head(t.Context(), key)

	return err != nil
}

func (p *plane) remove(id string) {
	p.t.Helper()
	_, err := p.job.CancelJob(p.t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
	require.NoError(p.t, err)
	_, err = p.job.DeleteJob(p.t.Context(), &tcoderv1.DeleteJobRequest{JobId: id})
	require.NoError(p.t, err)
}

// output stores an object where a job's outputs lie.
func (p *plane) output(id string) string {
	p.t.Helper()
	key := media.OutputPrefix(pipeline.DefaultProject, id, "mp4") + "x.mp4"
	require.NoError(p.t, p.out.Put(p.t.Context(), key, bytes.NewReader([]byte("x")), objectstore.PutOptions{}))

	return key
}

// The source of an upload is there as long as one job has it: deleting one of
// two removes its outputs alone and the other can be tried again, deleting
// both removes the source. Then no job can be made of it any more.
func TestSharedSource(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	p.sweep(0)
	first := p.uploaded("bytes")
	key := first.GetSource().GetObjectKey()
	res, err := p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: key})
	require.NoError(t, err)
	second := res.GetJob()
	require.Equal(t, first.GetSource().GetUploadId(), second.GetSource().GetUploadId())
	require.Equal(t, first.GetSource().GetEtag(), second.GetSource().GetEtag())

	outputs := p.output(first.GetId())
	p.remove(first.GetId())
	require.Eventually(t, func() bool { return gone(t, p.out, outputs) }, patience, tick)
	require.False(t, gone(t, p.in, key))
	_, err = p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: second.GetId()})
	require.NoError(t, err)
	retried, err := p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: second.GetId(), Run: 1})
	require.NoError(t, err)
	require.Equal(t, uint32(2), retried.GetJob().GetRun())

	outputs = p.output(second.GetId())
	p.remove(second.GetId())
	require.Eventually(t, func() bool { return gone(t, p.out, outputs) && gone(t, p.in, key) }, patience, tick)
	_, err = p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: key})
	refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_OBJECT_NOT_FOUND)
}

// An upload that is not complete is no source, though its bytes are there
// already: they may be replaced, or removed with it.
func TestOpenUploadIsNoSource(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	opened := p.create(&tcoderv1.CreateUploadRequest{Filename: "clip.mp4", SizeBytes: 5})
	status, _ := p.send(opened.GetPut(), []byte("bytes"))
	require.Equal(t, http.StatusOK, status)
	_, err := p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: opened.GetUpload().GetObjectKey()})
	refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_OBJECT_NOT_FOUND)
}

// A job whose retention is over is removed with its events, its outputs and
// its source; one that shares the source and was tried again keeps it, as does
// an object that came by no upload.
func TestRetention(t *testing.T) {
	t.Parallel()
	const retention = time.Hour
	p := start(t, options{})
	old, kept := p.uploaded("old"), p.uploaded("kept")
	res, err := p.job.CreateJob(t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: kept.GetSource().GetObjectKey()})
	require.NoError(t, err)
	live, foreign := res.GetJob(), p.newJob()
	ended := []*tcoderv1.Job{old, kept, foreign}
	var outputs []string
	for _, j := range ended {
		outputs = append(outputs, p.output(j.GetId()))
		_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: j.GetId()})
		require.NoError(t, err)
	}
	require.NoError(t, p.store.AdvanceClock(t.Context(), retention+time.Minute))
	p.sweep(retention)
	require.Eventually(t, func() bool {
		return gone(t, p.in, old.GetSource().GetObjectKey()) &&
			gone(t, p.out, outputs[0]) && gone(t, p.out, outputs[1]) && gone(t, p.out, outputs[2])
	}, patience, tick)
	for _, j := range ended {
		_, err := p.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: j.GetId()})
		refused(t, err, connect.CodeNotFound, tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND)
		_, err = p.store.JobEvents(t.Context(), j.GetId(), 0)
		require.Equal(t, pipeline.ReasonJobNotFound, pipeline.ReasonOf(err))
	}
	require.False(t, gone(t, p.in, kept.GetSource().GetObjectKey()))
	require.False(t, gone(t, p.in, foreign.GetSource().GetObjectKey()))
	require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, p.getJob(live.GetId()).GetState())
}
