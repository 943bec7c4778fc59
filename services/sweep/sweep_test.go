package sweep_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	"github.com/tcoder-dev/tcoder/services/sweep"
)

const (
	patience = 15 * time.Second
	lease    = time.Second
)

func TestMain(m *testing.M) { s3test.Main(redistest.Wrap(m)) }

type bundle struct {
	store   *redisstore.Store
	in, out *s3.Store
}

func setup(t *testing.T) bundle {
	t.Helper()
	url, tag := redistest.New(t)
	return setupOn(t, url, tag)
}

func setupOn(t *testing.T, url, tag string) bundle {
	t.Helper()
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	bucket := func() *s3.Store {
		b, err := s3.New(s3test.New(t))
		require.NoError(t, err)
		t.Cleanup(b.Close)
		return b
	}
	return bundle{store, bucket(), bucket()}
}

// sweeper is a running Sweeper.
type sweeper struct {
	*sweep.Sweeper

	stop func() error
}

func (s sweeper) leads() bool { return s.Term() != 0 }

func (b bundle) sweeper(t *testing.T, replica string, edit func(*sweep.Deps)) sweeper {
	t.Helper()
	deps := sweep.Deps{
		Store: b.store, In: b.in, Out: b.out,
		ExpireUpload: func(context.Context, string) error { return nil },
		Publish:      func(context.Context, string) error { return nil },
		Stream:       func(context.Context, string) error { return nil },
		Log:          slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&deps)
	}
	s := sweep.New(sweep.Config{Replica: replica, LeaderTTL: 2 * lease, Lease: lease, Retry: pipeline.DefaultRetryPolicy()}, deps)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return sweeper{s, stop}
}

func (b bundle) submit(t *testing.T) pipeline.Job {
	t.Helper()
	job, err := b.store.CreateJob(t.Context(),
		pipeline.Job{ID: ulid.Make().String(), Project: "default", Source: pipeline.Source{ObjectKey: "in/shared"}},
		pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	return job
}

// upload creates an upload that stays open for so long.
func (b bundle) upload(t *testing.T, open time.Duration) pipeline.Upload {
	t.Helper()
	upload := pipeline.Upload{ID: ulid.Make().String(), JobID: ulid.Make().String(), Project: "default", SizeBytes: 1, ObjectKey: "in/x"}
	_, err := b.store.CreateUpload(t.Context(), upload, pipeline.Job{ID: upload.JobID, Project: "default"}, open, pipeline.Admission{})
	require.NoError(t, err)
	return upload
}

func (b bundle) attach(t *testing.T, id string) int64 {
	t.Helper()
	session, _, err := b.store.AttachWorker(t.Context(), pipeline.Worker{ID: id, Slots: 9}, lease)
	require.NoError(t, err)
	return session
}

func (b bundle) claim(t *testing.T, worker string, session int64) []pipeline.Lease {
	t.Helper()
	claimed, err := b.store.ClaimTasks(t.Context(), pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: worker, Session: session, Max: 9, Lease: lease,
	})
	require.NoError(t, err)
	return claimed.Leases
}

// begin begins an upload in parts of an output.
func (b bundle) begin(t *testing.T, key string) {
	t.Helper()
	_, err := b.out.CreateMultipart(t.Context(), key, objectstore.MultipartOptions{})
	require.NoError(t, err)
}

// begun are the keys of the uploads in parts that were begun.
func (b bundle) begun(t *testing.T) []string {
	t.Helper()
	var found []string
	require.NoError(t, b.out.ListMultipart(t.Context(), "", func(key, _ string) error {
		found = append(found, key)
		return nil
	}))
	return found
}

func (b bundle) put(t *testing.T, bucket *s3.Store, keys ...string) {
	t.Helper()
	for _, key := range keys {
		require.NoError(t, bucket.Put(t.Context(), key, strings.NewReader(key), objectstore.PutOptions{}))
	}
}

func keys(t *testing.T, bucket *s3.Store) []string {
	t.Helper()
	keys := []string{}
	for _, prefix := range []string{"in/", "out/"} {
		require.NoError(t, bucket.List(t.Context(), prefix, func(o objectstore.ObjectInfo) error {
			keys = append(keys, o.Key)
			return nil
		}))
	}
	return keys
}

// TestExpiredLease: a task whose worker fell silent is ready again within two
// seconds of the end of its lease, though the sweeper had nothing to do when
// the lease began.
func TestExpiredLease(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.sweeper(t, "a", nil)
	require.Eventually(t, s.leads, patience, time.Millisecond)
	session := b.attach(t, "silent")
	job := b.submit(t)
	leases := b.claim(t, "silent", session)
	require.Len(t, leases, 1)
	wakes, err := b.store.Wakes(t.Context())
	require.NoError(t, err)
	expires, other := leases[0].Expires, b.attach(t, "other")
	var again []pipeline.Lease
	require.Eventually(t, func() bool {
		select {
		case wake := <-wakes: // that of the submission may come late
			if wake == pipeline.WakeReady {
				again = b.claim(t, "other", other)
			}
		default:
		}
		return len(again) == 1
	}, patience, time.Millisecond)
	require.WithinDuration(t, expires, time.Now(), 2*time.Second)
	require.Equal(t, pipeline.LeaseRef{TaskID: media.TaskID(job.ID, 0), Attempt: 2}, again[0].Ref)
}

// TestOneLeader: one of two replicas leads. When it stops, the other takes
// over at once; one that comes back under the dead leader's name leads, too.
func TestOneLeader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.sweeper(t, "a", nil)
	require.Eventually(t, first.leads, patience, time.Millisecond)
	<-first.Elected()
	second := b.sweeper(t, "b", nil)
	session := b.attach(t, "w")
	b.submit(t)
	b.claim(t, "w", session) // sets a deadline, which makes both look
	require.NoError(t, first.stop())
	require.Zero(t, first.Term())
	select {
	case <-second.Elected():
	case <-time.After(patience):
		require.Fail(t, "nobody took over")
	}
	namesake := b.sweeper(t, "b", nil)
	require.Eventually(t, namesake.leads, patience, time.Millisecond)
}

// TestDuties: each kind of duty is done once it is due, comes again after a
// failure or a panic, and is over after that.
func TestDuties(t *testing.T) {
	t.Parallel()
	b := setup(t)
	upload := b.upload(t, time.Second)
	var tries atomic.Int32
	b.sweeper(t, "a", func(d *sweep.Deps) {
		d.ExpireUpload = func(ctx context.Context, id string) error {
			switch tries.Add(1) {
			case 1:
				return errors.New("not yet")
			case 2:
				panic("a job that nobody thought of")
			}
			_, err := b.store.EndUpload(ctx, id, pipeline.UploadExpire, pipeline.Failure{Reason: pipeline.ReasonUploadExpired, Message: "Expired."})
			return err
		}
	})
	advance := func(d time.Duration) {
		require.NoError(t, b.store.AdvanceClock(t.Context(), d))
		b.submit(t) // something happens, as it does
	}
	require.Eventually(t, func() bool { return tries.Load() == 1 }, patience, time.Millisecond)
	advance(2 * time.Minute)
	require.Eventually(t, func() bool { return tries.Load() == 2 }, patience, time.Millisecond)
	advance(2 * time.Minute)
	require.Eventually(t, func() bool {
		job, err := b.store.GetJob(t.Context(), upload.JobID)
		return err == nil && job.State == pipeline.JobFailed
	}, patience, 5*time.Millisecond)
	require.EqualValues(t, 3, tries.Load())
}

// TestClean: an ended job keeps the objects that its outputs name and no
// other, nor what was begun; a job that was retried meanwhile keeps everything.
func TestClean(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sweeper(t, "a", nil)
	session := b.attach(t, "w")
	canceled, retried, neighbour := b.submit(t), b.submit(t), b.submit(t)
	b.claim(t, "w", session)
	for _, job := range []pipeline.Job{canceled, retried} {
		_, err := b.store.CancelJob(t.Context(), job.ID)
		require.NoError(t, err)
	}
	_, err := b.store.RetryJob(t.Context(), retried.ID, 1, pipeline.NewTask{Kind: pipeline.KindProbe}, 0)
	require.NoError(t, err)
	b.put(t, b.out, media.JobPrefix("default", canceled.ID)+"hls/t1a1/x.m4s",
		media.JobPrefix("default", retried.ID)+"hls/t1a1/x.m4s", media.JobPrefix("default", neighbour.ID)+"hls/t1a1/x.m4s")
	for _, job := range []pipeline.Job{canceled, retried} {
		b.begin(t, media.JobPrefix("default", job.ID)+"mp4/t1a1/1080p.mp4")
	}
	require.NoError(t, b.store.AdvanceClock(t.Context(), 10*time.Minute))
	b.claim(t, "w", session)
	require.Eventually(t, func() bool { return len(keys(t, b.out)) == 2 && len(b.begun(t)) == 1 }, patience, 10*time.Millisecond)
	require.NotContains(t, strings.Join(keys(t, b.out), " "), canceled.ID)
	require.Contains(t, b.begun(t)[0], retried.ID)
}

// TestCleanCompleted: of a completed job, what no output names goes.
func TestCleanCompleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	session := b.attach(t, "w")
	job := b.submit(t)
	leases := b.claim(t, "w", session)
	_, err := b.store.ReleaseTask(t.Context(), "w", leases[0].Ref) // leaves an attempt to clean up after
	require.NoError(t, err)
	leases = b.claim(t, "w", session)
	_, last, err := b.store.FinishTask(t.Context(), pipeline.TaskResult{Ref: leases[0].Ref, WorkerID: "w"})
	require.NoError(t, err)
	require.True(t, last)
	prefix := media.JobPrefix("default", job.ID)
	var published atomic.Bool
	b.sweeper(t, "a", func(d *sweep.Deps) {
		d.Publish = func(ctx context.Context, id string) error {
			ok, err := b.store.CompleteJob(ctx, id, 1, []media.Output{{Name: "hls", Objects: []media.OutputObject{{Key: prefix + "hls/t1a2/x.m4s"}}}})
			published.Store(ok)
			return err
		}
	})
	b.put(t, b.out, prefix+"hls/t1a1/x.m4s", prefix+"hls/t1a2/x.m4s")
	// The job is complete a moment before its publisher is told so.
	require.Eventually(t, func() bool {
		done, err := b.store.GetJob(t.Context(), job.ID)
		return err == nil && done.State == pipeline.JobCompleted && published.Load()
	}, patience, 10*time.Millisecond, "the duty to publish was not done")
	require.NoError(t, b.store.AdvanceClock(t.Context(), 10*time.Minute))
	b.submit(t)
	b.claim(t, "w", session)
	require.Eventually(t, func() bool { return len(keys(t, b.out)) == 1 }, patience, 10*time.Millisecond)
	require.Equal(t, []string{prefix + "hls/t1a2/x.m4s"}, keys(t, b.out))
}

// TestPurge: a deleted job's objects go, what was begun of them, and its source if it was uploaded for
// it, not if it was there before.
func TestPurge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sweeper(t, "a", nil)
	uploadID := ulid.Make().String()
	uploaded := pipeline.Job{
		ID: ulid.Make().String(), Project: "default",
		Source: pipeline.Source{ObjectKey: media.InputKey("default", uploadID), UploadID: uploadID},
	}
	_, err := b.store.CreateUpload(t.Context(), pipeline.Upload{
		ID: uploadID, JobID: uploaded.ID, Project: "default", SizeBytes: 1, ObjectKey: uploaded.Source.ObjectKey,
	}, uploaded, time.Hour, pipeline.Admission{})
	require.NoError(t, err)
	_, err = b.store.CompleteUpload(t.Context(), uploadID, 1, "etag", pipeline.NewTask{Kind: pipeline.KindProbe})
	require.NoError(t, err)
	shared := b.submit(t)
	b.put(t, b.in, uploaded.Source.ObjectKey, "in/shared")
	for _, job := range []pipeline.Job{uploaded, shared} {
		b.put(t, b.out, media.JobPrefix("default", job.ID)+"hls/master.m3u8", media.JobPrefix("default", job.ID)+"hls/t1a1/x.m4s")
		b.begin(t, media.JobPrefix("default", job.ID)+"mp4/t1a1/1080p.mp4")
		_, err = b.store.CancelJob(t.Context(), job.ID)
		require.NoError(t, err)
		require.NoError(t, b.store.DeleteJob(t.Context(), job.ID))
	}
	require.NoError(t, b.store.AdvanceClock(t.Context(), 10*time.Minute))
	b.submit(t)
	b.claim(t, "w", b.attach(t, "w"))
	require.Eventually(t, func() bool {
		return len(keys(t, b.out)) == 0 && len(keys(t, b.in)) == 1 && len(b.begun(t)) == 0
	}, patience, 10*time.Millisecond)
	require.Equal(t, []string{"in/shared"}, keys(t, b.in))
}

// TestRedisOutage: a sweeper survives the loss of Redis and goes on when it is
// back; a lease that was live when Redis died is not lost by that.
func TestRedisOutage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{FsyncAlways: true})
	b := setupOn(t, server.URL(), "{outage}")
	s := b.sweeper(t, "a", nil)
	require.Eventually(t, s.leads, patience, time.Millisecond)
	session := b.attach(t, "w")
	b.submit(t)
	leases := b.claim(t, "w", session)
	server.Kill()
	require.Eventually(t, func() bool { return s.Term() == 0 }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { return time.Now().After(leases[0].Expires) }, patience, 10*time.Millisecond)
	server.Restart()
	require.Eventually(t, s.leads, patience, 10*time.Millisecond)
	renewed, err := b.store.RenewLeases(t.Context(), "w", lease, []pipeline.Renewal{{Ref: leases[0].Ref}})
	require.NoError(t, err)
	require.Empty(t, renewed.Lost)
}

// looks counts the sweeps of one replica.
type looks struct {
	*memstore.Store

	n    atomic.Int64
	hang atomic.Bool  // until the call is given up
	late atomic.Int64 // nanoseconds that an answer takes
}

func (l *looks) Sweep(ctx context.Context, r pipeline.SweepRequest) (pipeline.Swept, error) {
	l.n.Add(1)
	if l.hang.Load() {
		<-ctx.Done()
		return pipeline.Swept{}, ctx.Err() //nolint:wrapcheck // as it is
	}
	if late := time.Duration(l.late.Load()); late > 0 {
		<-time.After(late)
	}
	return l.Store.Sweep(ctx, r)
}

// TestLeadRunsOut: a replica whose sweeps are stuck doesn't believe to lead
// longer than the others wait for it.
func TestLeadRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &looks{Store: memstore.New(memstore.Config{Clock: time.Now})}
		s := sweep.New(sweep.Config{Replica: "a", LeaderTTL: 6 * time.Second, Lease: 20 * time.Second}, sweep.Deps{
			Store: l, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		synctest.Wait()
		l.hang.Store(true)
		<-time.After(6*time.Second - 1) // a sweep hangs for 10 s since the fifth
		require.Equal(t, int64(1), s.Term())
		<-time.After(1)
		require.Zero(t, s.Term())
		l.hang.Store(false)
		<-time.After(12 * time.Second)
		require.NotZero(t, s.Term())
		cancel()
		running.Wait()
	})
}

// TestLeadLapses: a leader whose sweep is answered late, but before another one
// leads, is told that it leads again: it has rested meanwhile.
func TestLeadLapses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &looks{Store: memstore.New(memstore.Config{Clock: time.Now})}
		s := sweep.New(sweep.Config{Replica: "a", Lease: 20 * time.Second}, sweep.Deps{Store: l, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		<-s.Elected()
		term := s.Term()
		l.late.Store(int64(6 * time.Second))
		for s.Term() != 0 {
			<-time.After(100 * time.Millisecond)
		}
		l.late.Store(0)
		<-s.Elected()
		require.Equal(t, term, s.Term())
		cancel()
		running.Wait()
	})
}

// TestIdleLead: of replicas with nothing to do one leads and keeps the lead,
// which costs each of them a call every 15 s.
func TestIdleLead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{Clock: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var replicas []*looks
		var sweepers []*sweep.Sweeper
		for _, name := range []string{"a", "b"} {
			l := &looks{Store: store}
			s := sweep.New(sweep.Config{Replica: name, Lease: 20 * time.Second}, sweep.Deps{Store: l, Log: slog.New(slog.DiscardHandler)})
			replicas, sweepers = append(replicas, l), append(sweepers, s)
			running.Go(func() { _ = s.Run(ctx) })
			<-time.After(time.Second)
		}
		<-time.After(time.Hour)
		require.Equal(t, int64(1), sweepers[0].Term())
		require.Zero(t, sweepers[1].Term())
		for _, l := range replicas {
			require.LessOrEqual(t, l.n.Load(), int64(245))
		}
		cancel()
		running.Wait()
	})
}
