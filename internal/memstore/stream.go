package memstore

import (
	"context"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// streamVisibility is when a duty to publish a stream comes again that was handed out.
const streamVisibility = 10 * time.Second

// stream is what is committed of a run before its tasks are done.
type stream struct {
	commits   []pipeline.Commit
	published time.Time
	shown     []pipeline.RenditionProgress
}

// committed counts the segments of a task's rendition.
func (s *stream) committed(task int, rendition string) int {
	n := 0

	for _, c := range s.commits {
		if c.Task == task && c.Uploaded.Rendition.Name == rendition {
			n = c.Uploaded.First + len(c.Uploaded.Segments)
		}
	}

	return n
}

// CommitSegments implements [pipeline.StreamStore].
func (s *Store) CommitSegments(_ context.Context, c pipeline.SegmentCommit) (pipeline.Verdict, error) {
	defer s.begin()()

	t := s.task(c.Ref.TaskID)
	if t == nil || !t.heldBy(c.WorkerID, c.Ref.Attempt) {
		return pipeline.VerdictStale, nil
	}

	j := t.job
	for _, u := range c.Uploaded {
		if u.First > j.stream.committed(t.index, u.Rendition.Name) {
			return pipeline.VerdictStale, nil
		}
	}

	before := len(j.stream.commits)

	for _, u := range c.Uploaded {
		if u.First+len(u.Segments) > j.stream.committed(t.index, u.Rendition.Name) {
			j.stream.commits = append(j.stream.commits, pipeline.Commit{
				Output: c.Output, Part: c.Part, Task: t.index, Attempt: t.attempt, Uploaded: u,
			})
		}
	}

	if _, waits := s.duties[dutyName{pipeline.DutyStream, j.rec.ID}]; !waits && len(j.stream.commits) > before {
		at := s.now
		if next := j.stream.published.Add(pipeline.StreamEvery); next.After(at) {
			at = next
		}

		// The only task that isn't done may be so at once, and then all is published.
		if j.open() == 1 && !j.rec.Times.Playable.IsZero() {
			at = s.now.Add(pipeline.StreamEvery)
		}

		s.duty(pipeline.DutyStream, j.rec.ID, at)
	}

	return pipeline.VerdictAccepted, nil
}

// ReadStream implements [pipeline.StreamStore].
func (s *Store) ReadStream(_ context.Context, id string, run int, after int64) (pipeline.Stream, error) {
	defer s.begin()()

	j := s.jobs[id]
	if j == nil {
		return pipeline.Stream{}, noJob()
	}

	read := pipeline.Stream{
		Project: j.rec.Project, State: j.rec.State, Run: j.rec.Run, Playable: !j.rec.Times.Playable.IsZero(),
		Version: int64(len(j.stream.commits)),
	}

	if run != j.rec.Run {
		after, read.Plan = 0, j.rec.Plan
	}

	if after < read.Version {
		read.Commits = slices.Clone(j.stream.commits[after:])
	}

	return read, nil
}

// StreamPublished implements [pipeline.StreamStore].
func (s *Store) StreamPublished(_ context.Context, p pipeline.Publication) (bool, error) {
	defer s.begin()()

	name := dutyName{pipeline.DutyStream, p.JobID}

	j := s.jobs[p.JobID]
	if j != nil && j.rec.Run != p.Run {
		return false, nil
	}

	delete(s.duties, name)

	if j == nil || j.rec.State != pipeline.JobRunning {
		return false, nil
	}

	again := s.now // before a player can start nothing is written, so nothing has to wait

	if p.Playable {
		j.stream.published, j.stream.shown = s.now, slices.Clone(p.Renditions)
		for i := range j.stream.shown {
			j.stream.shown[i].Percent = 0
		}

		s.playable(j)

		again = again.Add(pipeline.StreamEvery)
	}

	if j.open() > 0 && int64(len(j.stream.commits)) > p.Version {
		s.duty(name.kind, name.id, again)
	}

	return true, nil
}

// playable notes, the first time, that a player can start.
func (s *Store) playable(j *job) {
	if j.rec.Times.Playable.IsZero() {
		j.rec.Times.Playable = s.now
		s.event(j, pipeline.EventPlayable, nil, nil)
	}
}

// endStream forgets the stream of a run that ends. If that had begun to be
// played and has no success, what was published is to go at once.
func (s *Store) endStream(j *job, typ pipeline.EventType) {
	j.stream = stream{}

	if typ != pipeline.EventCompleted && !j.rec.Times.Playable.IsZero() {
		s.duty(pipeline.DutyStream, j.rec.ID, s.now)
	}
}
