package storetest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func admitTests() map[string]func(*env) {
	return map[string]func(*env){
		"QueueFullRefuses":         admitQueueFull,
		"QueueFullSparesReplays":   admitReplays,
		"QueueFullIsPerProject":    admitPerProject,
		"SharedSourceOutlivesJobs": admitSharedSource,
		"SourceThatIsGone":         admitSourceGone,
		"RetentionDeletes":         admitRetention,
		"RetentionSparesTheLive":   admitRetentionLive,
		"AttachedAreSeen":          admitAttached,
		"WatchedIsTold":            admitWatched,
	}
}

// full requires the refusal of a full queue, with a hint when to try again.
func (e *env) full(err error) {
	e.Helper()
	e.refused(pipeline.ReasonQueueFull, err)

	var refusal *pipeline.Error

	require.ErrorAs(e, err, &refusal)
	require.Positive(e, refusal.RetryAfter)
	require.NotEmpty(e, refusal.Remedy)
}

// Jobs that upload and jobs that are pending count, each that starts or ends makes room.
func admitQueueFull(e *env) {
	w := e.attach("w1")
	limit := pipeline.Admission{WaitingLimit: 3}
	create := func() error {
		_, err := e.store.CreateJob(e.ctx(), newJob(), probe(), limit)

		return err //nolint:wrapcheck // it is what the test looks at
	}
	upload := func() error {
		u, j := newUpload()
		_, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, limit)

		return err //nolint:wrapcheck // it is what the test looks at
	}

	failed := e.failed(w)

	require.NoError(e, create())
	require.NoError(e, upload())
	require.NoError(e, create())
	e.full(create())
	e.full(upload())
	_, err := e.store.RetryJob(e.ctx(), failed.ID, 1, probe(), 3)
	e.full(err)
	require.Equal(e, pipeline.JobFailed, e.get(failed.ID).State)

	e.claimOne(w) // one runs
	_, err = e.store.RetryJob(e.ctx(), failed.ID, 1, probe(), 3)
	require.NoError(e, err)
	e.full(create())
	_, err = e.store.RetryJob(e.ctx(), failed.ID, 1, probe(), 3)
	require.NoError(e, err, "a replay")

	_, err = e.store.CancelJob(e.ctx(), failed.ID)
	require.NoError(e, err)
	require.NoError(e, upload())
	e.full(upload())

	_, err = e.store.CreateJob(e.ctx(), newJob(), probe(), pipeline.Admission{})
	require.NoError(e, err, "no limit is none")
}

// Whoever repeats a call that took effect gets its answer, however full the queue is.
func admitReplays(e *env) {
	a := pipeline.Admission{IdempotencyKey: "key", Fingerprint: "f", KeyTTL: keyFor, WaitingLimit: 1}
	j := newJob()
	_, err := e.store.CreateJob(e.ctx(), j, probe(), a)
	require.NoError(e, err)

	again, err := e.store.CreateJob(e.ctx(), newJob(), probe(), a)
	require.NoError(e, err)
	require.Equal(e, j.ID, again.ID)

	_, err = e.store.CreateJob(e.ctx(), j, probe(), pipeline.Admission{WaitingLimit: 1})
	require.NoError(e, err, "the same id")

	u, uj := newUpload()
	uj.Project, u.Project = "other", "other"
	_, err = e.store.CreateUpload(e.ctx(), u, uj, time.Hour, a)
	require.NoError(e, err)

	u2, uj2 := newUpload()
	uj2.Project, u2.Project = "other", "other"
	first, err := e.store.CreateUpload(e.ctx(), u2, uj2, time.Hour, a)
	require.NoError(e, err)
	require.Equal(e, u.ID, first.ID)

	a.IdempotencyKey = "new"
	_, err = e.store.CreateJob(e.ctx(), newJob(), probe(), a)
	e.full(err)
}

func admitPerProject(e *env) {
	e.job()

	other := newJob()
	other.Project = "other"
	_, err := e.store.CreateJob(e.ctx(), other, probe(), pipeline.Admission{WaitingLimit: 1})
	require.NoError(e, err)
}

// uploaded takes an upload to COMPLETED and cancels its job.
func (e *env) uploaded() pipeline.Upload {
	e.Helper()

	u := e.upload(time.Hour)
	got, err := e.store.CompleteUpload(e.ctx(), u.ID, 5, "etag", probe())
	require.NoError(e, err)
	_, err = e.store.CancelJob(e.ctx(), u.JobID)
	require.NoError(e, err)

	return got
}

// sharing creates a job whose source is an upload's, and cancels it.
func (e *env) sharing(u pipeline.Upload) pipeline.Job {
	e.Helper()

	j := newJob()
	j.Source = pipeline.Source{ObjectKey: u.ObjectKey, UploadID: u.ID}

	for range 2 { // the second is a replay, and counts for nothing
		_, err := e.store.CreateJob(e.ctx(), j, probe(), pipeline.Admission{})
		require.NoError(e, err)
	}

	got, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)

	return got
}

// The source of several jobs goes with the last of them.
func admitSharedSource(e *env) {
	u := e.uploaded()
	second, third := e.sharing(u), e.sharing(u)

	for _, id := range []string{u.JobID, third.ID, second.ID} {
		require.NoError(e, e.store.DeleteJob(e.ctx(), id))
		require.NoError(e, e.store.DeleteJob(e.ctx(), id), "a replay")

		var purge pipeline.Duty

		for _, d := range e.sweep().Duties {
			if d.ID == id {
				purge = d
			}
		}

		require.Equal(e, pipeline.DutyPurge, purge.Kind)
		require.Equal(e, u.Project, purge.Project)

		_, err := e.store.GetUpload(e.ctx(), u.ID)
		if id != second.ID {
			require.NoError(e, err)
			require.Empty(e, purge.Source.UploadID)
			require.Empty(e, purge.Source.ObjectKey)
		} else {
			e.refused(pipeline.ReasonUploadNotFound, err)
			require.Equal(e, u.ID, purge.Source.UploadID)
			require.Equal(e, u.ObjectKey, purge.Source.ObjectKey)
		}
	}
}

// A job can't be made of a source that was removed, or never came.
func admitSourceGone(e *env) {
	create := func(u pipeline.Upload) error {
		j := newJob()
		j.Source = pipeline.Source{ObjectKey: u.ObjectKey, UploadID: u.ID}
		_, err := e.store.CreateJob(e.ctx(), j, probe(), pipeline.Admission{})

		return err //nolint:wrapcheck // it is what the test looks at
	}
	u := e.uploaded()
	require.NoError(e, e.store.DeleteJob(e.ctx(), u.JobID))
	e.refused(pipeline.ReasonObjectNotFound, create(u))

	open := e.upload(time.Hour)
	e.refused(pipeline.ReasonObjectNotFound, create(open))
	_, err := e.store.EndUpload(e.ctx(), open.ID, pipeline.UploadAbort, pipeline.Failure{})
	require.NoError(e, err)
	e.refused(pipeline.ReasonObjectNotFound, create(open))
	e.refused(pipeline.ReasonObjectNotFound, create(pipeline.Upload{ID: newID()}))
}

// retain sweeps with a retention.
func (e *env) retain(d time.Duration) pipeline.Swept {
	e.Helper()

	r := sweepBy(replica)
	r.Retention = d
	s, err := e.store.Sweep(e.ctx(), r)
	require.NoError(e, err)

	return s
}

// A job that ended is deleted after its retention, with all that deleting means.
func admitRetention(e *env) {
	w := e.attach("w1")
	completed, failed := e.completed(w), e.failed(w)
	u := e.uploaded()

	const retention = 10 * time.Second

	s := e.retain(retention)
	require.Zero(e, s.Retired)
	require.Positive(e, s.NextDue)
	require.LessOrEqual(e, s.NextDue, retention)

	e.advance(e.T, retention+time.Second)
	require.Zero(e, e.retain(0).Retired, "without one they stay")

	s = e.retain(retention)
	require.Equal(e, 3, s.Retired)

	purged := map[string]bool{}

	for _, d := range append(s.Duties, e.retain(retention).Duties...) {
		if d.Kind == pipeline.DutyPurge {
			purged[d.ID] = true
		}
	}

	require.Equal(e, map[string]bool{completed.ID: true, failed.ID: true, u.JobID: true}, purged)

	for id := range purged {
		_, err := e.store.GetJob(e.ctx(), id)
		e.refused(pipeline.ReasonJobNotFound, err)
		require.NoError(e, e.store.EndDuty(e.ctx(), pipeline.Duty{Kind: pipeline.DutyPurge, ID: id}))
	}

	_, err := e.store.GetUpload(e.ctx(), u.ID)
	e.refused(pipeline.ReasonUploadNotFound, err)
	require.Empty(e, e.list(pipeline.JobFilter{Limit: 10}))
	require.Zero(e, e.retain(retention).Retired)
}

// A job that was tried again isn't deleted for its earlier end.
func admitRetentionLive(e *env) {
	w := e.attach("w1")
	j := e.failed(w)
	_, err := e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)

	waiting := e.job()
	e.retain(time.Minute)
	e.advance(e.T, time.Hour)
	require.Zero(e, e.retain(time.Minute).Retired)
	require.Equal(e, pipeline.JobPending, e.get(j.ID).State)
	require.Equal(e, pipeline.JobPending, e.get(waiting.ID).State)
	require.Equal(e, leadFor, e.retain(time.Minute).NextDue)
}

// Idle workers are seen by the sweeps of the replica that holds their streams,
// whoever leads, and one that is forgotten doesn't come back by it.
func admitAttached(e *env) {
	for _, id := range []string{"w1", "w2", "w3"} {
		e.attach(id)
	}

	require.True(e, e.sweep().Leader)

	for range 4 {
		e.advance(e.T, 30*time.Second)
		e.sweep()

		r := sweepBy("other")
		r.Attached = []string{"w1", "nobody"}
		s, err := e.store.Sweep(e.ctx(), r)
		require.NoError(e, err)
		require.False(e, s.Leader)

		r = sweepBy(replica)
		r.Attached = []string{"w2"}
		s, err = e.store.Sweep(e.ctx(), r)
		require.NoError(e, err)
		require.True(e, s.Leader)
	}

	seen := make([]string, 0, 2)
	for _, w := range e.workers() {
		seen = append(seen, w.ID)
	}

	require.Equal(e, []string{"w1", "w2"}, seen)
}

// A renewal says whether somebody watches, also of a task that weighs nothing.
func admitWatched(e *env) {
	w := e.attach("w1")
	watched, other := e.job(), e.job()
	leases := e.claim(w, 2)
	require.Equal(e, watched.ID, leases[0].Job.ID)

	renew := func(l ...pipeline.Lease) bool {
		rs := make([]pipeline.Renewal, 0, len(l))
		for _, l := range l {
			rs = append(rs, pipeline.Renewal{Ref: l.Ref})
		}

		got, err := e.store.RenewLeases(e.ctx(), w.id, leaseFor, rs)
		require.NoError(e, err)
		require.Empty(e, got.Lost)

		return got.Watched
	}
	require.False(e, renew(leases...))

	ctx, cancel := context.WithCancelCause(e.ctx())
	e.watch(ctx, watched.ID)
	require.True(e, renew(leases...))
	require.True(e, renew(leases[0]))
	require.False(e, renew(leases[1]))
	require.Equal(e, other.ID, leases[1].Job.ID)
	cancel(nil)
	require.Eventually(e, func() bool { return !renew(leases...) }, patience, time.Millisecond)
}
