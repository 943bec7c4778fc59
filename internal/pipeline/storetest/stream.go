package storetest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func streamTests() map[string]func(*env) {
	return map[string]func(*env){
		"Grows":                             streamGrows,
		"IsReadFromWhereItIsKnown":          streamIsReadFromWhereItIsKnown,
		"TakesASegmentOnce":                 streamTakesASegmentOnce,
		"OutlivesAnAttempt":                 streamOutlivesAnAttempt,
		"RefusesTheStale":                   streamRefusesTheStale,
		"RefusesHoles":                      streamRefusesHoles,
		"IsADuty":                           streamIsADuty,
		"IsPublishedOnceASecond":            streamIsPublishedOnceASecond,
		"OfTheLastTaskWaits":                streamOfTheLastTaskWaits,
		"WaitsForNothingBeforeItIsPlayable": streamWaitsForNothingBeforeItIsPlayable,
		"DutyComesAgain":                    streamDutyComesAgain,
		"MakesAJobPlayableOnce":             streamMakesAJobPlayableOnce,
		"CompletionMakesPlayable":           streamCompletionMakesPlayable,
		"IsShown":                           streamIsShown,
		"EndsWithTheJob":                    streamEndsWithTheJob,
		"OfAFailureIsADuty":                 streamOfAFailureIsADuty,
		"OfAFailureBeforeItPlayed":          streamOfAFailureBeforeItPlayed,
		"StartsAnewWithARetry":              streamStartsAnewWithARetry,
		"OfADeletedJobIsNone":               streamOfADeletedJobIsNone,
		"OfAnUnknownJob":                    streamOfAnUnknownJob,
	}
}

// segments are n segments of a rendition, the first at a position.
func segments(rendition string, first, n int) media.UploadedSegments {
	u := media.UploadedSegments{
		Rendition: media.RenditionResult{Name: rendition, Codecs: "avc1.64001f", Width: 640, Height: 360},
		Init:      media.EncodedObject{Name: rendition + "/init.mp4", SizeBytes: 700, ContentType: "video/mp4"},
		First:     first,
	}
	for i := first; i < first+n; i++ {
		u.Segments = append(u.Segments, media.EncodedObject{
			Name: fmt.Sprintf("%s/%05d.m4s", rendition, i), SizeBytes: 1000, Duration: 4 * time.Second, ContentType: "video/iso.segment",
		})
	}

	return u
}

func (e *env) commit(w worker, ref pipeline.LeaseRef, us ...media.UploadedSegments) pipeline.Verdict {
	e.Helper()

	v, err := e.store.CommitSegments(e.ctx(), pipeline.SegmentCommit{Ref: ref, WorkerID: w.id, Output: "hls", Part: 2, Uploaded: us})
	require.NoError(e, err)

	return v
}

func (e *env) stream(id string, run int, after int64) pipeline.Stream {
	e.Helper()

	s, err := e.store.ReadStream(e.ctx(), id, run, after)
	require.NoError(e, err)

	return s
}

func (e *env) publish(p pipeline.Publication) bool {
	e.Helper()

	live, err := e.store.StreamPublished(e.ctx(), p)
	require.NoError(e, err)

	return live
}

// streamDuties are the jobs whose streams a sweep hands out.
func (e *env) streamDuties() []string {
	e.Helper()

	var ids []string

	for _, d := range e.sweep().Duties {
		if d.Kind == pipeline.DutyStream {
			require.Equal(e, pipeline.DefaultProject, d.Project)
			require.NoError(e, e.store.EndDuty(e.ctx(), d), "it isn't ended by this")

			ids = append(ids, d.ID)
		}
	}

	return ids
}

// playing takes a new job to two tasks that run.
func (e *env) playing() (worker, pipeline.Job, []pipeline.Lease) {
	e.Helper()

	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	e.sweep()

	return w, j, e.claim(w, 2)
}

// What is committed is read, in order, with who made it.
func streamGrows(e *env) {
	w, j, leases := e.playing()
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, leases[0].Ref, segments("360p", 0, 1), segments("720p", 0, 1)))
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, leases[1].Ref, segments("360p", 0, 2)))
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, leases[0].Ref, segments("360p", 1, 1)))

	s := e.stream(j.ID, 0, 0)
	require.Equal(e, pipeline.JobRunning, s.State)
	require.Equal(e, 1, s.Run)
	require.Equal(e, j.Project, s.Project)
	require.False(e, s.Playable)
	require.Equal(e, int64(4), s.Version)
	require.Equal(e, j.Plan, s.Plan)

	at := func(task int, u media.UploadedSegments) pipeline.Commit {
		return pipeline.Commit{Output: "hls", Part: 2, Task: task, Attempt: 1, Uploaded: u}
	}
	require.Equal(e, []pipeline.Commit{
		at(1, segments("360p", 0, 1)), at(1, segments("720p", 0, 1)), at(2, segments("360p", 0, 2)), at(1, segments("360p", 1, 1)),
	}, s.Commits)
}

// A reader gets what it lacks, and all of a run that it doesn't know.
func streamIsReadFromWhereItIsKnown(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	e.commit(w, leases[0].Ref, segments("360p", 1, 1))

	s := e.stream(j.ID, 1, 1)
	require.Nil(e, s.Plan)
	require.Len(e, s.Commits, 1)
	require.Equal(e, 1, s.Commits[0].Uploaded.First)
	require.Empty(e, e.stream(j.ID, 1, 2).Commits)
	require.Len(e, e.stream(j.ID, 7, 2).Commits, 2)
}

// A replay, and what another attempt made again, add nothing.
func streamTakesASegmentOnce(e *env) {
	w, j, leases := e.playing()
	for range 2 {
		require.Equal(e, pipeline.VerdictAccepted, e.commit(w, leases[0].Ref, segments("360p", 0, 2)))
	}

	require.Equal(e, int64(1), e.stream(j.ID, 0, 0).Version)
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, leases[0].Ref, segments("360p", 1, 2)), "it overlaps and goes on")
	require.Equal(e, int64(2), e.stream(j.ID, 0, 0).Version)
}

// What a lost attempt committed stays, and the next one goes on from there.
func streamOutlivesAnAttempt(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 2))
	require.Equal(e, pipeline.VerdictAccepted, e.release(w, leases[0].Ref))

	next := e.claimOne(w)
	require.Equal(e, 2, next.Ref.Attempt)
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, next.Ref, segments("360p", 0, 1)))
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, next.Ref, segments("360p", 1, 2)))

	s := e.stream(j.ID, 0, 0)
	require.Equal(e, int64(2), s.Version)
	require.Equal(e, []int{1, 2}, []int{s.Commits[0].Attempt, s.Commits[1].Attempt})
}

// A lease that isn't the worker's adds nothing.
func streamRefusesTheStale(e *env) {
	w, j, leases := e.playing()
	other := e.attach("w2")
	require.Equal(e, pipeline.VerdictStale, e.commit(other, leases[0].Ref, segments("360p", 0, 1)))

	later := leases[0].Ref
	later.Attempt++
	require.Equal(e, pipeline.VerdictStale, e.commit(w, later, segments("360p", 0, 1)))
	require.Equal(e, pipeline.VerdictStale, e.commit(w, pipeline.LeaseRef{TaskID: "none", Attempt: 1}, segments("360p", 0, 1)))
	require.Equal(e, pipeline.VerdictStale, e.commit(w, pipeline.LeaseRef{TaskID: j.ID + "-9", Attempt: 1}, segments("360p", 0, 1)))

	e.finish(w, leases[0].Ref)
	require.Equal(e, pipeline.VerdictStale, e.commit(w, leases[0].Ref, segments("360p", 0, 1)))
	e.release(w, leases[1].Ref)
	require.Equal(e, pipeline.VerdictStale, e.commit(w, leases[1].Ref, segments("360p", 0, 1)))
	require.Zero(e, e.stream(j.ID, 0, 0).Version)
	require.Empty(e, e.streamDuties())
}

// A stream is played from its start: it has no holes, and one rendition's
// hole keeps out what came along.
func streamRefusesHoles(e *env) {
	w, j, leases := e.playing()
	require.Equal(e, pipeline.VerdictStale, e.commit(w, leases[0].Ref, segments("360p", 1, 1)))
	require.Equal(e, pipeline.VerdictStale, e.commit(w, leases[0].Ref, segments("360p", 0, 1), segments("720p", 1, 1)))
	require.Zero(e, e.stream(j.ID, 0, 0).Version)
}

// A commit is to be published at once.
func streamIsADuty(e *env) {
	w, j, leases := e.playing()
	require.Empty(e, e.streamDuties())
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1}))
	require.Empty(e, e.streamDuties())
	e.advance(e.T, time.Minute)
	require.Empty(e, e.streamDuties())
}

// What is committed meanwhile, or soon after, waits for its second.
func streamIsPublishedOnceASecond(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	e.commit(w, leases[0].Ref, segments("360p", 1, 1))
	require.Empty(e, e.streamDuties(), "it is worked on")
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))
	e.advance(e.T, pipeline.StreamEvery*9/10)
	require.Empty(e, e.streamDuties())
	e.advance(e.T, pipeline.StreamEvery/10)
	require.Equal(e, []string{j.ID}, e.streamDuties())
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 2, Playable: true}))

	e.commit(w, leases[0].Ref, segments("360p", 2, 1))
	require.Empty(e, e.streamDuties())
	e.advance(e.T, pipeline.StreamEvery)
	require.Equal(e, []string{j.ID}, e.streamDuties())
}

// What the only task that is left commits may be all there is: it waits for a
// second, in which the end of the task takes its place.
func streamOfTheLastTaskWaits(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	require.True(e, e.get(j.ID).Streamed.IsZero())
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))

	streamed := e.get(j.ID).Streamed
	require.Equal(e, e.get(j.ID).Times.Playable, streamed)
	e.finish(w, leases[0].Ref)
	e.advance(e.T, 2*pipeline.StreamEvery)
	e.commit(w, leases[1].Ref, segments("360p", 0, 1))
	require.Empty(e, e.streamDuties())
	e.advance(e.T, pipeline.StreamEvery)
	require.Equal(e, []string{j.ID}, e.streamDuties())
	e.commit(w, leases[1].Ref, segments("360p", 1, 1))
	e.finish(w, leases[1].Ref)
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 2, Playable: true}))
	require.True(e, e.get(j.ID).Streamed.After(streamed))
	e.advance(e.T, time.Minute)
	require.Empty(e, e.streamDuties(), "all is published")
}

// Until a player can start nothing is written, and nothing waits.
func streamWaitsForNothingBeforeItIsPlayable(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	e.commit(w, leases[0].Ref, segments("360p", 1, 1))
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1}))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 2}))
	e.commit(w, leases[0].Ref, segments("360p", 2, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
}

// A replica that dies while it publishes costs 10 s.
func streamDutyComesAgain(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	e.advance(e.T, 9*time.Second)
	require.Empty(e, e.streamDuties())
	e.advance(e.T, time.Second)
	require.Equal(e, []string{j.ID}, e.streamDuties())
}

// Playable is one event and one time.
func streamMakesAJobPlayableOnce(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1}))
	require.True(e, e.get(j.ID).Times.Playable.IsZero())

	for range 2 {
		require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))
		e.advance(e.T, time.Second)
	}

	playable := e.get(j.ID).Times.Playable
	require.False(e, playable.IsZero())
	require.True(e, e.stream(j.ID, 0, 0).Playable)

	for _, l := range leases {
		e.finish(w, l.Ref)
	}

	require.True(e, e.complete(j.ID, 1))
	require.Equal(e, playable, e.get(j.ID).Times.Playable)
	require.Equal(e, []pipeline.EventType{
		pipeline.EventTaskLeased, pipeline.EventTaskLeased, pipeline.EventPlayable,
		pipeline.EventTaskDone, pipeline.EventTaskDone, pipeline.EventCompleted,
	}, e.events(j.ID)[6:])
}

// A job that was never played before it completed is playable then.
func streamCompletionMakesPlayable(e *env) {
	w := e.attach("w1")
	j := e.completed(w)
	require.Equal(e, j.Times.Finished, j.Times.Playable)

	types := e.events(j.ID)
	require.Equal(e, []pipeline.EventType{pipeline.EventPlayable, pipeline.EventCompleted}, types[len(types)-2:])
}

// A reader of the job is told what can be played.
func streamIsShown(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))

	shown := []pipeline.RenditionProgress{{Output: "hls", Name: "360p", Playable: 4 * time.Second}}
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true, Renditions: shown}))
	require.Equal(e, shown, e.get(j.ID).Progress.Renditions)
}

// A stream is gone when its run ends; what was published is the outputs'.
func streamEndsWithTheJob(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))

	for _, l := range leases {
		e.finish(w, l.Ref)
	}

	require.True(e, e.complete(j.ID, 1))
	require.Empty(e, e.streamDuties())

	s := e.stream(j.ID, 0, 0)
	require.Equal(e, pipeline.JobCompleted, s.State)
	require.Zero(e, s.Version)
	require.Empty(e, s.Commits)
	require.False(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))
	require.Empty(e, e.get(j.ID).Progress.Renditions)
}

// What was published of a job that fails has to go at once.
func streamOfAFailureIsADuty(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.Equal(e, []string{j.ID}, e.streamDuties())
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))
	require.Equal(e, pipeline.VerdictAccepted, e.fail(w, leases[0].Ref, pipeline.FaultInput, pipeline.ReasonInputNotMedia))
	require.Equal(e, []string{j.ID}, e.streamDuties())

	s := e.stream(j.ID, 1, 1)
	require.Equal(e, pipeline.JobFailed, s.State)
	require.False(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1}))
	e.advance(e.T, time.Minute)
	require.Empty(e, e.streamDuties())
}

// A job that fails before anything was published leaves nothing to withdraw.
func streamOfAFailureBeforeItPlayed(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.Empty(e, e.streamDuties())
}

// A new run has a stream of its own; what is said of the old one's is refused.
func streamStartsAnewWithARetry(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	_, err = e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	require.Empty(e, e.streamDuties())

	e.plan(w, e.claimOne(w), encode(1))
	l := e.claimOne(w)
	require.Equal(e, pipeline.VerdictAccepted, e.commit(w, l.Ref, segments("360p", 0, 1)))
	require.False(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))
	require.True(e, e.get(j.ID).Times.Playable.IsZero())
	require.Equal(e, []string{j.ID}, e.streamDuties(), "the old run's word doesn't end it")

	s := e.stream(j.ID, 1, 1)
	require.Equal(e, 2, s.Run)
	require.Len(e, s.Commits, 1)
	require.Equal(e, 4, s.Commits[0].Task)
	require.NotNil(e, s.Plan)
}

func streamOfADeletedJobIsNone(e *env) {
	w, j, leases := e.playing()
	e.commit(w, leases[0].Ref, segments("360p", 0, 1))
	require.True(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1, Playable: true}))

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))
	require.Empty(e, e.streamDuties())

	_, err = e.store.ReadStream(e.ctx(), j.ID, 1, 0)
	e.refused(pipeline.ReasonJobNotFound, err)
	require.False(e, e.publish(pipeline.Publication{JobID: j.ID, Run: 1, Version: 1}))
}

func streamOfAnUnknownJob(e *env) {
	_, err := e.store.ReadStream(e.ctx(), newID(), 0, 0)
	e.refused(pipeline.ReasonJobNotFound, err)
	require.False(e, e.publish(pipeline.Publication{JobID: newID(), Run: 1}))
}
