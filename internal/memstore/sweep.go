package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	cleanAfter  = 6 * time.Minute // a lease: later than any URL that was signed for it can live
	visibility  = time.Minute     // a duty that was handed out comes again after that
	forgetAfter = time.Hour       // a worker that vanished without a word
)

// dutyName names a duty.
type dutyName struct {
	kind pipeline.DutyKind
	id   string
}

// purge is what a deleted job left.
type purge struct {
	project string
	source  pipeline.Source
	again   time.Time // when it is to be purged once more; zero: never
}

// duty leaves a duty to be handed out at a moment.
func (s *Store) duty(kind pipeline.DutyKind, id string, at time.Time) {
	s.duties[dutyName{kind, id}] = at
	s.due(at)
}

// dropDuties ends the duties that only hold for the state a job leaves.
func (s *Store) dropDuties(j *job) {
	delete(s.duties, dutyName{pipeline.DutyPublish, j.rec.ID})
	delete(s.duties, dutyName{pipeline.DutyStream, j.rec.ID})
	delete(s.duties, dutyName{pipeline.DutyClean, j.rec.ID})
}

// cleanLater leaves the duty to remove what no output names.
func (s *Store) cleanLater(j *job) {
	s.duty(pipeline.DutyClean, j.rec.ID, s.now.Add(j.maxLease+cleanAfter))
}

// Sweep implements [pipeline.SweepStore].
func (s *Store) Sweep(_ context.Context, r pipeline.SweepRequest) (pipeline.Swept, error) {
	defer s.begin()()

	for _, id := range r.Attached {
		if w := s.workers[id]; w != nil {
			w.rec.LastSeen = s.now
		}
	}

	if s.leader != "" && s.leader != r.Replica && !s.passed(s.until) {
		return pipeline.Swept{NextDue: min(r.LeaderTTL, s.until.Sub(s.now)), Term: s.term}, nil
	}

	if s.leader != r.Replica || s.term != r.Term {
		s.term++ // a process that didn't lead a moment ago
	}

	swept := pipeline.Swept{Leader: true, Term: s.term}

	if s.swept.IsZero() || s.now.Sub(s.swept) > r.Lease/2 {
		for t := range s.leased {
			t.deadline = s.now.Add(r.Lease)
		}
	}

	s.takeBack(r, &swept)
	s.wakeDelayed(&swept)
	s.retire(r, &swept)
	s.handOut(r, &swept)
	s.forgetWorkers()

	s.leader, s.until, s.swept = r.Replica, s.now.Add(r.LeaderTTL), s.now
	swept.NextDue = s.nextDue(r)
	s.next, s.earliest = s.now.Add(swept.NextDue), time.Time{} // its own deadlines are in its answer

	return swept, nil
}

// takeBack requeues leases that ran out, or quarantines their tasks.
func (s *Store) takeBack(r pipeline.SweepRequest, swept *pipeline.Swept) {
	overdue := sorted(s.leased, func(t *task) bool { return s.passed(t.deadline) })
	slices.SortStableFunc(overdue, func(a, b *task) int { return a.deadline.Compare(b.deadline) })

	for _, t := range overdue {
		if t.rec.State != pipeline.TaskLeased {
			continue // the end of its job ended it just now
		}

		t.losses++
		s.wake(pipeline.WakeWorker)

		if t.losses < r.Retry.MaxLosses {
			s.giveBack(t, pipeline.TaskLose, pipeline.OutcomeLost, &pipeline.Failure{
				Reason: pipeline.ReasonWorkerLost, Message: "The worker was silent until its lease ran out.",
			})

			swept.Requeued++

			continue
		}

		s.kill(t, pipeline.OutcomeLost, &pipeline.Failure{
			Reason: pipeline.ReasonQuarantined,
			Message: fmt.Sprintf("The task was lost with %d workers (%s) and is not given to another.",
				t.losses, strings.Join(t.lostWith(), ", ")),
		}, false)

		swept.Dead++
	}
}

// lostWith names the workers whose leases of a task ran out, that of the running attempt included.
func (t *task) lostWith() []string {
	var names []string

	for _, a := range t.rec.Attempts {
		if a.Outcome == pipeline.OutcomeLost || a.Outcome == "" {
			names = append(names, a.WorkerID)
		}
	}

	return names
}

func (s *Store) wakeDelayed(swept *pipeline.Swept) {
	for _, t := range sorted(s.delayed, func(t *task) bool { return s.passed(t.rec.NotBefore) }) {
		s.rested(t)
		s.ready(t, pipeline.TaskWake)

		swept.Woken++
	}
}

// retire deletes jobs whose retention is over.
func (s *Store) retire(r pipeline.SweepRequest, swept *pipeline.Swept) {
	if r.Retention <= 0 {
		return
	}

	var over []*job

	for _, j := range s.jobs {
		if j.rec.State.Terminal() && s.passed(j.rec.Times.Finished.Add(r.Retention)) {
			over = append(over, j)
		}
	}

	// The last of those that share a source has to purge it.
	slices.SortFunc(over, func(a, b *job) int {
		return cmp.Or(a.rec.Times.Finished.Compare(b.rec.Times.Finished), strings.Compare(a.rec.ID, b.rec.ID))
	})

	for _, j := range over {
		s.deleteJob(j)

		swept.Retired++
	}
}

// handOut lists the duties that are due, uploads first, then by when.
func (s *Store) handOut(r pipeline.SweepRequest, swept *pipeline.Swept) {
	var names []dutyName

	for name, at := range s.duties {
		if s.passed(at) {
			names = append(names, name)
		}
	}

	slices.SortFunc(names, func(a, b dutyName) int {
		upload := func(n dutyName) int {
			if n.kind == pipeline.DutyExpireUpload {
				return 0
			}

			return 1
		}

		return cmp.Or(cmp.Compare(upload(a), upload(b)), s.duties[a].Compare(s.duties[b]),
			cmp.Compare(a.kind, b.kind), strings.Compare(a.id, b.id))
	})

	for _, name := range names {
		s.duties[name] = s.now.Add(visibility)
		if r.Busy && (name.kind == pipeline.DutyPurge || name.kind == pipeline.DutyClean) {
			continue
		}

		d := pipeline.Duty{Kind: name.kind, ID: name.id}

		switch name.kind {
		case pipeline.DutyPurge:
			d.Project, d.Source = s.purges[name.id].project, s.purges[name.id].source
		case pipeline.DutyExpireUpload:
			d.Project = s.uploads[name.id].rec.Project
		case pipeline.DutyPublish, pipeline.DutyClean:
			d.Project = s.jobs[name.id].rec.Project
		case pipeline.DutyStream:
			s.duties[name] = s.now.Add(streamVisibility)
			d.Project = s.jobs[name.id].rec.Project
		}

		swept.Duties = append(swept.Duties, d)
	}
}

// forgetWorkers drops those that vanished and hold nothing.
func (s *Store) forgetWorkers() {
	for id, w := range s.workers {
		if s.passed(w.rec.LastSeen.Add(forgetAfter)) && len(s.held(id)) == 0 {
			delete(s.workers, id)
		}
	}
}

// nextDue is the time until the next deadline.
func (s *Store) nextDue(r pipeline.SweepRequest) time.Duration {
	wait := r.LeaderTTL

	for t := range s.leased {
		wait = min(wait, t.deadline.Sub(s.now), (r.Lease / sweepsPerLease).Truncate(time.Millisecond))
	}

	for t := range s.delayed {
		wait = min(wait, t.rec.NotBefore.Sub(s.now))
	}

	for _, at := range s.duties {
		wait = min(wait, at.Sub(s.now))
	}

	if r.Retention > 0 {
		for _, j := range s.jobs {
			if j.rec.State.Terminal() {
				wait = min(wait, j.rec.Times.Finished.Add(r.Retention).Sub(s.now))
			}
		}
	}

	return max(0, wait)
}

// EndDuty implements [pipeline.SweepStore].
func (s *Store) EndDuty(_ context.Context, d pipeline.Duty) error {
	defer s.begin()()

	name := dutyName{d.Kind, d.ID}

	switch d.Kind {
	case pipeline.DutyExpireUpload:
		if u := s.uploads[d.ID]; u == nil || u.rec.State != pipeline.UploadOpen {
			delete(s.duties, name)
		}
	case pipeline.DutyPublish:
		if j := s.jobs[d.ID]; j == nil || j.rec.State != pipeline.JobRunning || j.open() > 0 {
			delete(s.duties, name)
		}
	case pipeline.DutyPurge:
		if left, ok := s.purges[d.ID]; ok && !left.again.IsZero() && !s.passed(left.again) {
			s.duty(d.Kind, d.ID, left.again)
		} else {
			delete(s.duties, name)
			delete(s.purges, d.ID)
		}
	case pipeline.DutyClean:
		// One that is further away than it comes again was left since it was handed out.
		if at, ok := s.duties[name]; ok && s.passed(at.Add(-visibility)) {
			delete(s.duties, name)
		}
	case pipeline.DutyStream: // StreamPublished ends it
	}

	return nil
}

// Resign implements [pipeline.SweepStore].
func (s *Store) Resign(_ context.Context, replica string) error {
	defer s.begin()()

	if s.leader == replica {
		s.leader, s.next = "", time.Time{} // what was due and not done yet has to wake, too
		s.due(s.now)
	}

	return nil
}
