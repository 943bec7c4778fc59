package modeltest

import (
	"context"
	"math"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	enoughRounds = 60
	aWhile       = 5 * time.Second  // often enough that the leases of the silent run out
	quiet        = 10 * time.Minute // longer than any duty rests
)

// converge is what a deployment does when nobody asks anything more of it:
// every job comes to its end, and when their retention is over nothing is left.
func (w *world) converge() {
	w.Helper()

	w.calm = true
	w.attachAs(pipeline.Worker{ID: "w9"}) // nobody has drained it
	last := w.sessions[len(w.sessions)-1]

	for round := 0; w.alive(); round++ {
		require.Less(w, round, enoughRounds, "jobs don't end: %+v", w.last.Jobs)
		w.settle(0)
		w.work(last)
		w.pass(aWhile)
	}

	// What was left to do comes, and comes again until it is done.
	for range 3 {
		w.pass(quiet)
		w.settle(0)
	}

	w.nothingDue(0)
	w.pass(retention)

	for range 3 {
		w.settle(retention)
		w.pass(quiet)
	}

	w.nothingDue(retention)
	require.Empty(w, w.last.Jobs)
	require.Empty(w, w.last.Uploads)
	require.Equal(w, pipeline.PoolStats{}, w.last.Stats)
}

func (w *world) alive() bool {
	for _, j := range w.last.Jobs {
		if !j.State.Terminal() {
			return true
		}
	}

	return false
}

// settle sweeps and does what the sweep leaves to do.
func (w *world) settle(keep time.Duration) {
	swept, err := w.sweepBy(pipeline.SweepRequest{
		Replica: "r1", LeaderTTL: leadFor, Lease: leaseFor, Retry: policy(), Retention: keep,
	})
	require.NoError(w, err)

	for _, d := range swept.Duties {
		w.auditDuty(d)

		switch d.Kind {
		case pipeline.DutyExpireUpload:
			_, err := w.do(call{"EndUpload", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
				got, err := s.EndUpload(ctx, d.ID, pipeline.UploadExpire, pipeline.Failure{Reason: pipeline.ReasonUploadExpired})

				return got, got, err
			}})
			if err != nil { // it ended otherwise: what was stored of it is to be removed
				require.Contains(w, []pipeline.Reason{
					pipeline.ReasonUploadAborted, pipeline.ReasonUploadSizeMismatch, pipeline.ReasonUploadNotFound,
				}, pipeline.ReasonOf(err))
			}
		case pipeline.DutyPublish:
			w.complete(d.ID, w.last.Jobs[d.ID].Run)
		case pipeline.DutyStream:
			w.published(pipeline.Publication{JobID: d.ID, Run: w.last.Jobs[d.ID].Run, Version: math.MaxInt32})
		case pipeline.DutyClean, pipeline.DutyPurge:
		}

		w.end(d)
	}
}

// auditDuty holds that the objects of a deleted job are purged without a
// source that another job still has.
func (w *world) auditDuty(d pipeline.Duty) {
	if d.Kind != pipeline.DutyPurge || d.Source.UploadID == "" {
		return
	}

	for id, j := range w.read(w.real.Replicas[0]).Jobs {
		require.NotEqual(w, d.Source.UploadID, j.Source.UploadID, "the source of job %s is purged", id)
	}
}

// work does all that is ready, and completes what is uploaded.
func (w *world) work(at session) {
	for _, id := range w.uploads {
		if w.last.Uploads[id].State == pipeline.UploadOpen {
			_, _ = w.do(call{"CompleteUpload", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
				got, err := s.CompleteUpload(ctx, id, goodSize, "etag", probe())

				return got, got, err
			}})
		}
	}

	for range mostAlive {
		answer, err := w.do(call{"ClaimTasks", "", w.claimAll(at)})
		require.NoError(w, err)

		c := answer.(claimed) //nolint:forcetypeassert // it is what the call returned
		require.False(w, c.Refused)

		for _, l := range c.Leases {
			_, err := w.do(call{"FinishTask", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
				v, last, err := s.FinishTask(ctx, pipeline.TaskResult{Ref: l.Ref, WorkerID: at.worker})

				return []any{v, last}, []any{v, last}, err
			}})
			require.NoError(w, err)
		}

		if !c.More {
			return
		}
	}
}

func (w *world) claimAll(at session) func(context.Context, pipeline.Store) (any, any, error) {
	c := pipeline.Claim{RequestID: w.id("r"), WorkerID: at.worker, Session: at.number, Max: 100, Lease: leaseFor}

	return func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.ClaimTasks(ctx, c)

		return claimed{got, c.WorkerID}, refs(got.Leases), err
	}
}

// nothingDue requires that a sweep finds nothing, and nothing ahead but what retention ends.
func (w *world) nothingDue(keep time.Duration) {
	swept, err := w.sweepBy(pipeline.SweepRequest{
		Replica: "r1", LeaderTTL: leadFor, Lease: leaseFor, Retry: policy(), Retention: keep,
	})
	require.NoError(w, err)
	require.Equal(w, pipeline.Swept{Leader: true, Term: w.last.Pool.Term, NextDue: leadFor}, swept)
}
