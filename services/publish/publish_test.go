package publish_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	"github.com/tcoder-dev/tcoder/services/publish"
)

func TestMain(m *testing.M) { s3test.Main(redistest.Wrap(m)) }

type bundle struct {
	store *redisstore.Store
	out   *s3.Store
}

func setup(t *testing.T) bundle {
	t.Helper()
	url, tag := redistest.New(t)
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	out, err := s3.New(s3test.New(t))
	require.NoError(t, err)
	t.Cleanup(out.Close)
	return bundle{store, out}
}

func (b bundle) publisher(out objectstore.Objects) *publish.Publisher {
	return publish.New(b.store, out, slog.New(slog.DiscardHandler))
}

// encoded takes a job of two HLS outputs up to the given number of its encode
// tasks.
func (b bundle) encoded(t *testing.T, tasks int) pipeline.Job {
	t.Helper()
	ctx := t.Context()
	_, _, err := b.store.AttachWorker(ctx, pipeline.Worker{ID: "w1", Slots: 9}, time.Minute)
	require.NoError(t, err)
	workers, err := b.store.ListWorkers(ctx)
	require.NoError(t, err)
	claim := func() pipeline.Lease {
		claimed, err := b.store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: ulid.Make().String(), WorkerID: "w1", Session: workers[0].Session, Max: 1, Lease: time.Minute,
		})
		require.NoError(t, err)
		require.Len(t, claimed.Leases, 1)
		return claimed.Leases[0]
	}
	job, err := b.store.CreateJob(ctx, pipeline.Job{ID: ulid.Make().String(), Project: "default", Source: pipeline.Source{ObjectKey: "k"}},
		pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	video := &media.VideoPlan{Renditions: []media.RenditionPlan{{Name: "360p", Width: 640, Height: 360}}}
	plan := &media.Plan{Duration: 4 * time.Second, Outputs: []media.OutputPlan{
		{Name: "one", Kind: media.KindHLS, Video: video}, {Name: "two", Kind: media.KindHLS, Video: video},
	}}
	_, last, err := b.store.FinishTask(ctx, pipeline.TaskResult{
		Ref: claim().Ref, WorkerID: "w1", Probe: &media.Probe{}, Plan: plan,
		Tasks: []pipeline.NewTask{{Kind: pipeline.KindEncode, Output: "one", Weight: 1}, {Kind: pipeline.KindEncode, Output: "two", Weight: 1}},
	})
	require.NoError(t, err)
	require.False(t, last)
	for i := range tasks {
		lease := claim()
		_, last, err = b.store.FinishTask(ctx, pipeline.TaskResult{Ref: lease.Ref, WorkerID: "w1", Result: &media.EncodeResult{
			Renditions: []media.EncodedRendition{{
				Result: media.RenditionResult{
					Name: "360p", Codecs: "avc1.64001f", Width: 640, Height: 360, FrameRate: media.Rational{Num: 25, Den: 1},
					Duration: 4 * time.Second, SizeBytes: 10,
				},
				InitSegment: &media.EncodedObject{Name: "360p/init.mp4", SizeBytes: 1, ContentType: "video/mp4"},
				Segments:    []media.EncodedObject{{Name: "360p/00000.m4s", SizeBytes: 9, Duration: 4 * time.Second, ContentType: "video/iso.segment"}},
			}},
		}})
		require.NoError(t, err)
		require.Equal(t, i == 1, last)
	}
	return job
}

func (b bundle) state(t *testing.T, id string) pipeline.JobState {
	t.Helper()
	job, err := b.store.GetJob(t.Context(), id)
	require.NoError(t, err)
	return job.State
}

func (b bundle) keys(t *testing.T) []string {
	t.Helper()
	var keys []string
	require.NoError(t, b.out.List(t.Context(), "out/", func(o objectstore.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

// TestPublish: a job whose tasks are done is completed with its manifests in
// place, which name the objects of the accepted attempts.
func TestPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 2)
	require.NoError(t, b.publisher(b.out).Publish(t.Context(), job.ID))
	done, err := b.store.GetJob(t.Context(), job.ID)
	require.NoError(t, err)
	require.Equal(t, pipeline.JobCompleted, done.State)
	require.Len(t, done.Outputs, 2)
	prefix := media.JobPrefix("default", job.ID)
	require.Equal(t, []string{
		prefix + "one/360p.m3u8", prefix + "one/master.m3u8", prefix + "two/360p.m3u8", prefix + "two/master.m3u8",
	}, b.keys(t))
	body, info, err := b.out.Get(t.Context(), prefix+"two/360p.m3u8")
	require.NoError(t, err)
	defer body.Close() //nolint:errcheck // a test
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Contains(t, string(text), "t2a1/360p/00000.m4s")
	require.Equal(t, "application/vnd.apple.mpegurl", info.ContentType)

	require.NoError(t, b.publisher(b.out).Publish(t.Context(), job.ID), "once more is harmless")
}

// TestTooEarly: nothing is published before the last task is done, nor for a
// job that isn't there.
func TestTooEarly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 1)
	require.NoError(t, b.publisher(b.out).Publish(t.Context(), job.ID))
	require.Equal(t, pipeline.JobRunning, b.state(t, job.ID))
	require.NoError(t, b.publisher(b.out).Publish(t.Context(), "nobody"))
	require.Empty(t, b.keys(t))
}

// TestNothingMade: a job whose tasks are done and made nothing is told of,
// again and again, rather than left to run for ever in silence.
func TestNothingMade(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 1)
	workers, err := b.store.ListWorkers(t.Context())
	require.NoError(t, err)
	claimed, err := b.store.ClaimTasks(t.Context(), pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: "w1", Session: workers[0].Session, Max: 1, Lease: time.Minute,
	})
	require.NoError(t, err)
	_, last, err := b.store.FinishTask(t.Context(), pipeline.TaskResult{Ref: claimed.Leases[0].Ref, WorkerID: "w1"})
	require.NoError(t, err)
	require.True(t, last)
	require.ErrorContains(t, b.publisher(b.out).Publish(t.Context(), job.ID), "output two")
	require.Empty(t, b.keys(t))
}

// TestTwoReplicas: publishing on two replicas at once completes the job once.
func TestTwoReplicas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 2)
	var replicas sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		replicas.Go(func() { errs[i] = b.publisher(b.out).Publish(t.Context(), job.ID) })
	}
	replicas.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, pipeline.JobCompleted, b.state(t, job.ID))
	events, err := b.store.JobEvents(t.Context(), job.ID, 0)
	require.NoError(t, err)
	completed := 0
	for _, e := range events {
		if e.Type == pipeline.EventCompleted {
			completed++
		}
	}
	require.Equal(t, 1, completed)
	require.Len(t, b.keys(t), 4)
}

// hookedStore does something before each write.
type hookedStore struct {
	objectstore.Objects

	before func(key string) error
}

func (s hookedStore) Put(ctx context.Context, key string, body io.ReadSeeker, opts objectstore.PutOptions) error {
	if err := s.before(key); err != nil {
		return err
	}
	return s.Objects.Put(ctx, key, body, opts)
}

// TestOrder: what others name is written before what names it.
func TestOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 2)
	var mu sync.Mutex
	var order []string
	require.NoError(t, b.publisher(hookedStore{b.out, func(key string) error {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, key)
		return nil
	}}).Publish(t.Context(), job.ID))
	require.Len(t, order, 4)
	for i, key := range order {
		require.Equal(t, i >= 2, strings.HasSuffix(key, "/master.m3u8"), key)
	}
}

// TestStoreFails: a write that fails leaves the job as it was, and the next
// try publishes it.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 2)
	broken := hookedStore{b.out, func(key string) error {
		if strings.Contains(key, "/two/") {
			return objectstore.ErrUnavailable
		}
		return nil
	}}
	require.ErrorIs(t, b.publisher(broken).Publish(t.Context(), job.ID), objectstore.ErrUnavailable)
	require.Equal(t, pipeline.JobRunning, b.state(t, job.ID))
	require.NoError(t, b.publisher(b.out).Publish(t.Context(), job.ID))
	require.Equal(t, pipeline.JobCompleted, b.state(t, job.ID))
}

// TestCanceledMeanwhile: a job that is canceled while its manifests are
// written stays canceled, and keeps none of them.
func TestCanceledMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.encoded(t, 2)
	once := sync.OnceValue(func() error {
		_, err := b.store.CancelJob(t.Context(), job.ID)
		return err
	})
	require.NoError(t, b.publisher(hookedStore{b.out, func(string) error { return once() }}).Publish(t.Context(), job.ID))
	require.Equal(t, pipeline.JobCanceled, b.state(t, job.ID))
	require.Empty(t, b.keys(t))
}
