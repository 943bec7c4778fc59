package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func uploadTests() map[string]func(*env) {
	return map[string]func(*env){
		"KeepsEveryField":        uploadKeepsEveryField,
		"IDIsIdempotent":         uploadIDIsIdempotent,
		"KeyIsIdempotent":        uploadKeyIsIdempotent,
		"KeyExpires":             uploadKeyExpires,
		"CompleteQueuesTheJob":   uploadCompleteQueuesTheJob,
		"EndEndsTheJob":          uploadEndEndsTheJob,
		"EndedRefusesOtherEnds":  uploadEndedRefusesOtherEnds,
		"UnknownIsNotFound":      uploadUnknownIsNotFound,
		"CancelOfTheJobAbortsIt": uploadCancelAborts,
		"RetryNeedsTheSource":    uploadRetryNeedsTheSource,
		"DeadlineBecomesADuty":   uploadDeadlineBecomesADuty,
		"LateBytesStillComplete": uploadLateBytesStillComplete,
		"DeletedKeyMakesANewOne": uploadDeletedKey,
		"DutyStaysWhileItIsOpen": uploadDutyStays,
		"KeyIsNotAJobKey":        uploadKeyIsNotAJobKey,
	}
}

// The upload and its job come back with all that was given, and the store's times.
func uploadKeepsEveryField(e *env) {
	u, j := newUpload()
	got, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, pipeline.Admission{})
	require.NoError(e, err)
	require.WithinDuration(e, got.Created.Add(time.Hour), got.Expires, 0)

	want := u
	want.State, want.Created, want.Expires = pipeline.UploadOpen, got.Created, got.Expires
	require.Equal(e, want, got)

	read, err := e.store.GetUpload(e.ctx(), u.ID)
	require.NoError(e, err)
	require.Equal(e, want, read)

	job := e.get(j.ID)
	require.Equal(e, pipeline.JobUploading, job.State)
	require.Equal(e, j.Spec, job.Spec)
	require.Equal(e, j.Source, job.Source)
	require.Equal(e, j.Labels, job.Labels)
	require.Equal(e, pipeline.WaitUpload, job.Wait)
	require.Empty(e, job.Tasks)
	require.Equal(e, []pipeline.EventType{pipeline.EventCreated}, e.events(j.ID))
}

// A repeat after a lost answer gives the first upload, whatever else it says.
func uploadIDIsIdempotent(e *env) {
	u, j := newUpload()
	first, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, pipeline.Admission{})
	require.NoError(e, err)

	again, err := e.store.CreateUpload(e.ctx(), u, j, time.Minute, pipeline.Admission{})
	require.NoError(e, err)
	require.Equal(e, first, again)
	require.Len(e, e.events(j.ID), 1)
}

// The same key gives the first upload; with another request it is refused.
func uploadKeyIsIdempotent(e *env) {
	idem := pipeline.Admission{IdempotencyKey: "key with {braces}", Fingerprint: "a b", KeyTTL: keyFor}
	u, j := newUpload()
	first, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, idem)
	require.NoError(e, err)

	u2, j2 := newUpload()
	again, err := e.store.CreateUpload(e.ctx(), u2, j2, time.Hour, idem)
	require.NoError(e, err)
	require.Equal(e, first, again)

	_, err = e.store.GetJob(e.ctx(), j2.ID)
	e.refused(pipeline.ReasonJobNotFound, err)

	idem.Fingerprint = "other"
	_, err = e.store.CreateUpload(e.ctx(), u2, j2, time.Hour, idem)
	e.refused(pipeline.ReasonIdempotencyKeyReused, err)
}

// A key is forgotten after its time.
func uploadKeyExpires(e *env) {
	idem := pipeline.Admission{IdempotencyKey: "key", Fingerprint: "a", KeyTTL: keyFor}
	u, j := newUpload()
	_, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, idem)
	require.NoError(e, err)

	e.advance(e.T, keyFor+time.Second)

	idem.Fingerprint = "b"
	u2, j2 := newUpload()
	second, err := e.store.CreateUpload(e.ctx(), u2, j2, time.Hour, idem)
	require.NoError(e, err)
	require.Equal(e, u2.ID, second.ID)
}

// A key whose upload was deleted makes a new one.
func uploadDeletedKey(e *env) {
	idem := pipeline.Admission{IdempotencyKey: "key", Fingerprint: "a", KeyTTL: keyFor}
	u, j := newUpload()
	_, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, idem)
	require.NoError(e, err)
	_, err = e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))

	u2, j2 := newUpload()
	second, err := e.store.CreateUpload(e.ctx(), u2, j2, time.Hour, idem)
	require.NoError(e, err)
	require.Equal(e, u2.ID, second.ID)
}

// Keys of uploads and of jobs don't meet.
func uploadKeyIsNotAJobKey(e *env) {
	idem := pipeline.Admission{IdempotencyKey: "key", Fingerprint: "a", KeyTTL: keyFor}
	u, j := newUpload()
	_, err := e.store.CreateUpload(e.ctx(), u, j, time.Hour, idem)
	require.NoError(e, err)

	other := newJob()
	created, err := e.store.CreateJob(e.ctx(), other, probe(), idem)
	require.NoError(e, err)
	require.Equal(e, other.ID, created.ID)
}

// Completing an upload makes its job wait for a worker, once.
func uploadCompleteQueuesTheJob(e *env) {
	u := e.upload(time.Hour)

	for range 2 {
		got, err := e.store.CompleteUpload(e.ctx(), u.ID, 100<<20, "etag", probe())
		require.NoError(e, err)
		require.Equal(e, pipeline.UploadCompleted, got.State)
	}

	j := e.get(u.JobID)
	require.Equal(e, pipeline.JobPending, j.State)
	require.Equal(e, int64(100<<20), j.Source.SizeBytes)
	require.Equal(e, "etag", j.Source.ETag)
	require.False(e, j.Times.Queued.IsZero())
	require.Len(e, j.Tasks, 1)
	require.Equal(e, pipeline.TaskReady, j.Tasks[0].State)
	require.Equal(e, []pipeline.EventType{pipeline.EventCreated, pipeline.EventQueued}, e.events(j.ID))
	require.Empty(e, e.pass(2*time.Hour).Duties, "a complete upload has no deadline")
}

// Each way to end an upload ends its job with the failure, and is safe to repeat.
func uploadEndEndsTheJob(e *env) {
	for by, want := range map[pipeline.UploadTransition]pipeline.JobState{
		pipeline.UploadAbort: pipeline.JobCanceled, pipeline.UploadExpire: pipeline.JobFailed, pipeline.UploadFail: pipeline.JobFailed,
	} {
		u := e.upload(time.Hour)
		f := pipeline.Failure{Reason: pipeline.ReasonUploadExpired, Message: "too late"}

		for range 2 {
			got, err := e.store.EndUpload(e.ctx(), u.ID, by, f)
			require.NoError(e, err)

			next, ok := pipeline.UploadOpen.Next(by)
			require.True(e, ok)
			require.Equal(e, next, got.State)
		}

		j := e.get(u.JobID)
		require.Equal(e, want, j.State)
		require.Equal(e, &f, j.Failure)
		require.False(e, j.Times.Finished.IsZero())
		require.Len(e, e.events(j.ID), 2)
	}
}

// An upload that ended says how to whoever wants another end.
func uploadEndedRefusesOtherEnds(e *env) {
	type end struct {
		by      pipeline.UploadTransition
		refusal pipeline.Reason
	}

	ends := []end{
		{pipeline.UploadComplete, pipeline.ReasonUploadCompleted},
		{pipeline.UploadAbort, pipeline.ReasonUploadAborted},
		{pipeline.UploadExpire, pipeline.ReasonUploadExpired},
		{pipeline.UploadFail, pipeline.ReasonUploadSizeMismatch},
	}
	do := func(id string, by pipeline.UploadTransition) error {
		if by == pipeline.UploadComplete {
			_, err := e.store.CompleteUpload(e.ctx(), id, 1, "etag", probe())

			return err //nolint:wrapcheck // it is what the test looks at
		}

		_, err := e.store.EndUpload(e.ctx(), id, by, pipeline.Failure{Reason: pipeline.ReasonUploadExpired, Message: "m"})

		return err
	}

	for _, first := range ends {
		u := e.upload(time.Hour)
		require.NoError(e, do(u.ID, first.by))
		job := e.get(u.JobID)

		for _, second := range ends {
			err := do(u.ID, second.by)
			if second.by == first.by {
				require.NoError(e, err)
			} else {
				e.refused(first.refusal, err)
			}
		}

		require.Equal(e, job, e.get(u.JobID))
	}
}

func uploadUnknownIsNotFound(e *env) {
	_, err := e.store.GetUpload(e.ctx(), newID())
	e.refused(pipeline.ReasonUploadNotFound, err)
	_, err = e.store.CompleteUpload(e.ctx(), newID(), 1, "etag", probe())
	e.refused(pipeline.ReasonUploadNotFound, err)
	_, err = e.store.EndUpload(e.ctx(), newID(), pipeline.UploadAbort, pipeline.Failure{})
	e.refused(pipeline.ReasonUploadNotFound, err)
}

// Canceling a job that uploads aborts its upload.
func uploadCancelAborts(e *env) {
	u := e.upload(time.Hour)
	j, err := e.store.CancelJob(e.ctx(), u.JobID)
	require.NoError(e, err)
	require.Equal(e, pipeline.JobCanceled, j.State)

	got, err := e.store.GetUpload(e.ctx(), u.ID)
	require.NoError(e, err)
	require.Equal(e, pipeline.UploadAborted, got.State)
	_, err = e.store.CompleteUpload(e.ctx(), u.ID, 1, "etag", probe())
	e.refused(pipeline.ReasonUploadAborted, err)
}

// A job whose source never came can't be tried again.
func uploadRetryNeedsTheSource(e *env) {
	u := e.upload(time.Hour)
	_, err := e.store.EndUpload(e.ctx(), u.ID, pipeline.UploadExpire, pipeline.Failure{Reason: pipeline.ReasonUploadExpired})
	require.NoError(e, err)
	_, err = e.store.RetryJob(e.ctx(), u.JobID, 1, probe(), 0)
	e.refused(pipeline.ReasonInputMissing, err)
}

// An upload past its deadline is handed out, again each minute until it ended.
func uploadDeadlineBecomesADuty(e *env) {
	u := e.upload(time.Hour)
	require.Empty(e, e.pass(time.Hour-time.Minute).Duties)

	want := pipeline.Duty{Kind: pipeline.DutyExpireUpload, ID: u.ID, Project: u.Project}
	require.Equal(e, []pipeline.Duty{want}, e.pass(90*time.Second).Duties)
	require.Equal(e, []pipeline.Duty{want}, e.pass(time.Minute).Duties)

	_, err := e.store.EndUpload(e.ctx(), u.ID, pipeline.UploadExpire, pipeline.Failure{Reason: pipeline.ReasonUploadExpired})
	require.NoError(e, err)
	require.NoError(e, e.store.EndDuty(e.ctx(), want))
	require.NotContains(e, e.pass(5*time.Minute).Duties, want)
}

// Ending the duty of an upload that is still open doesn't lose it.
func uploadDutyStays(e *env) {
	u := e.upload(time.Second)
	duties := e.pass(2 * time.Second).Duties
	require.Len(e, duties, 1)
	require.NoError(e, e.store.EndDuty(e.ctx(), duties[0]))
	require.Len(e, e.pass(time.Minute).Duties, 1)
	require.Equal(e, u.ID, duties[0].ID)
}

// Bytes that are there count, even if the deadline passed before they were looked for.
func uploadLateBytesStillComplete(e *env) {
	u := e.upload(time.Second)
	e.pass(time.Minute)

	got, err := e.store.CompleteUpload(e.ctx(), u.ID, 1, "etag", probe())
	require.NoError(e, err)
	require.Equal(e, pipeline.UploadCompleted, got.State)
	require.Equal(e, pipeline.JobPending, e.get(u.JobID).State)
}
