package pool_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/pool"
	"github.com/tcoder-dev/tcoder/services/sweep"
)

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

func (s hookedStore) ClaimTasks(ctx context.Context, c pipeline.Claim) (pipeline.Claimed, error) {
	got, err := s.Store.ClaimTasks(ctx, c)
	s.claimed(c, got.Leases)
	return got, err
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

// TestCancel: a canceled job's attempts are stopped at once, whichever replica
// holds the stream.
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
	require.Less(t, time.Since(began), promptly)
	require.Equal(t, refs[canceled.ID].GetTaskId(), stop.GetLease().GetTaskId())
	require.Equal(t, stale, w.report(probed(stop.GetLease())))
	require.Equal(t, accepted, w.report(probed(refs[other.ID])))
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
		swept, err := c.store.Sweep(t.Context(), pipeline.SweepRequest{
			Replica: "test", LeaderTTL: time.Minute, Lease: lease, Retry: pipeline.DefaultRetryPolicy(),
		})
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
		swept, err := c.store.Sweep(t.Context(), pipeline.SweepRequest{
			Replica: "test", LeaderTTL: time.Minute, Lease: lease, Retry: pipeline.DefaultRetryPolicy(),
		})
		require.NoError(t, err)
		w.heartbeat()
		return swept.Requeued == 1
	}, patience, 50*time.Millisecond)
}

// TestSilentWorker: a worker that says nothing for a lease is cut, and its
// task is with another one within two seconds of the end of its lease.
func TestSilentWorker(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.Lease = lease })
	sweeper := sweep.New(sweep.Config{Replica: "a", Lease: lease, Retry: pipeline.DefaultRetryPolicy()}, sweep.Deps{
		Store: c.store, In: c.in, Out: c.out, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- sweeper.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()

	silent, _ := r.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	require.EqualValues(t, 1, silent.assignment().GetLease().GetAttempt())
	leased := time.Now()
	other, _ := r.attach(t, &tcoderv1.Hello{})
	var again *tcoderv1.Assignment
	require.Eventually(t, func() bool {
		other.heartbeat()
		expect(other, func(m *tcoderv1.AttachResponse) *tcoderv1.HeartbeatAck {
			if m.GetAssignment() != nil {
				again = m.GetAssignment()
			}
			return m.GetHeartbeat()
		})
		return again != nil
	}, patience, 20*time.Millisecond)
	require.EqualValues(t, 2, again.GetLease().GetAttempt())
	require.Less(t, time.Since(leased), lease+promptly)
	err := silent.ends()
	require.ErrorContains(t, err, "The worker said nothing for too long.")
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING, reasonOf(t, err))
}

// TestOversizedAssignment: a task whose assignment nobody could read fails, and
// its worker's stream lives.
func TestOversizedAssignment(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{Slots: 2})
	job := c.submit(t)
	report := probed(w.assignment().GetLease())
	probe := report.GetProbe()
	word := strings.Repeat("x", 100)
	stream := &tcoderv1.StreamInfo{
		Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO, Codec: word, Profile: word, PixelFormat: word, ColorTransfer: word,
		ColorPrimaries: word, ColorSpace: word, FieldOrder: word, Language: word,
	}
	probe.Streams = append(probe.Streams, slices.Repeat([]*tcoderv1.StreamInfo{stream}, 3<<20/proto.Size(stream))...)
	require.Equal(t, accepted, w.report(report))
	require.Eventually(t, func() bool {
		attempts := c.job(t, job.ID).Tasks[1].Attempts
		return len(attempts) > 0 && attempts[0].Outcome == pipeline.OutcomeFailed
	}, patience, 20*time.Millisecond)
	attempt := c.job(t, job.ID).Tasks[1].Attempts[0]
	require.Equal(t, pipeline.ReasonInternal, attempt.Failure.Reason)
	require.True(t, attempt.Charged)
	require.Equal(t, c.submit(t).ID, w.assignment().GetJobId())
}

// TestLongWords: what a worker says at length is kept in short.
func TestLongWords(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	report := failed(w.assignment().GetLease(), tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT)
	report.GetFault().GetFailure().Message = strings.Repeat("\u00e9", 1<<20)
	require.Equal(t, accepted, w.report(report))
	require.Equal(t, strings.Repeat("\u00e9", 500), c.job(t, job.ID).Failure.Message)
}
