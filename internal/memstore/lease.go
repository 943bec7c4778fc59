package memstore

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	keptAnswers    = 2               // to claims of a worker
	renewedWithin  = time.Second     // a lease that was renewed so lately stays as it is while nobody watches
	freshPart      = 16              // or within this part of its length, if that is less
	unpublished    = 99.9            // the most percent of a job that isn't published
	publishGrace   = 5 * time.Second // for the replica that was told of the last task
	sweepsPerLease = 3               // the sweeper comes this often in a lease
)

// ClaimTasks implements [pipeline.LeaseStore]. A replay gets the first answer
// as long as the request is one of the worker's newest two that were given any.
func (s *Store) ClaimTasks(_ context.Context, c pipeline.Claim) (pipeline.Claimed, error) {
	defer s.begin()()

	w := s.workers[c.WorkerID]
	if w != nil {
		for _, a := range w.answers {
			if a.request == c.RequestID {
				return s.answer(s.stillHeld(c.WorkerID, a.leases)), nil
			}
		}
	}

	if w == nil || w.rec.Session != c.Session || w.rec.Draining || !w.rec.Attached {
		refused := s.answer(nil)
		refused.Refused = true

		return refused, nil
	}

	if s.turns.setLimit(c.RunningLimit) {
		s.wake(pipeline.WakeReady)
	}

	given := make([]*task, 0, max(0, c.Max))

	for len(given) < c.Max {
		t, found := s.turns.serve()
		if !found {
			break
		}

		s.lease(t, c.WorkerID, c.Lease)
		given = append(given, t)
	}

	if len(given) > 0 {
		a := answer{request: c.RequestID}
		for _, t := range given {
			a.leases = append(a.leases, t.ref())
		}

		w.answers = append([]answer{a}, w.answers[:min(len(w.answers), keptAnswers-1)]...)
		s.due(s.now.Add((c.Lease / sweepsPerLease).Truncate(time.Millisecond)))
	}

	return s.answer(given), nil
}

// answer is the answer to a claim, once its tasks are leased.
func (s *Store) answer(given []*task) pipeline.Claimed {
	c := pipeline.Claimed{More: s.turns.first() != nil}
	for _, t := range given {
		c.Leases = append(c.Leases, t.lease())
	}

	return c
}

// stillHeld are the tasks of leases that a worker still holds.
func (s *Store) stillHeld(workerID string, refs []pipeline.LeaseRef) []*task {
	var held []*task

	for _, ref := range refs {
		if t := s.task(ref.TaskID); t != nil && t.heldBy(workerID, ref.Attempt) {
			held = append(held, t)
		}
	}

	return held
}

// lease starts the next attempt of a task that was served.
func (s *Store) lease(t *task, workerID string, d time.Duration) {
	t.move(pipeline.TaskLease)
	t.attempt++
	t.worker, t.deadline, t.told, t.kept = workerID, s.now.Add(d), 0, time.Time{}
	t.rec.Attempts = append(slices.Clone(t.rec.Attempts), pipeline.Attempt{
		Number: t.attempt, WorkerID: workerID, Started: s.now,
	})
	s.leased[t] = struct{}{}

	j := t.job
	if j.move(pipeline.JobStart) {
		j.rec.Times.Started = s.now
		s.event(j, pipeline.EventStarted, nil, nil)
	}

	j.maxLease = max(j.maxLease, d)
	s.event(j, pipeline.EventTaskLeased, t, nil)
}

// RenewLeases implements [pipeline.LeaseStore].
func (s *Store) RenewLeases(
	_ context.Context, workerID string, lease time.Duration, rs []pipeline.Renewal,
) (pipeline.Renewed, error) {
	defer s.begin()()

	var renewed pipeline.Renewed

	seen := len(rs) == 0

	for _, r := range rs {
		t := s.task(r.Ref.TaskID)
		if t == nil || !t.heldBy(workerID, r.Ref.Attempt) {
			renewed.Lost = append(renewed.Lost, r.Ref)

			continue
		}

		watched := len(s.jobWatchers[t.job.rec.ID]) > 0
		renewed.Watched = renewed.Watched || watched

		if !watched && s.fresh(t, lease) {
			continue
		}

		t.deadline, seen = s.now.Add(lease), true
		if t.rec.Weight > 0 {
			s.tell(t, r)
		}
	}

	if w := s.workers[workerID]; w != nil && seen {
		w.rec.LastSeen = s.now
	}

	return renewed, nil
}

// fresh reports whether a renewal would add so little to a lease that it isn't worth a write.
func (s *Store) fresh(t *task, lease time.Duration) bool {
	adds := s.now.Add(lease).Sub(t.deadline)

	return adds >= 0 && adds < freshWithin(lease)
}

// freshWithin is what a renewal has to add to be worth a write.
func freshWithin(lease time.Duration) time.Duration { return min(renewedWithin, lease/freshPart) }

// tell takes in how far a task is. An attempt that says less than before was
// wrong before: its word counts, the job's percent doesn't fall.
func (s *Store) tell(t *task, r pipeline.Renewal) {
	j, fraction := t.job, min(1, max(0, finite(r.Fraction)))
	j.done += t.rec.Weight * (fraction - t.told)
	t.told, t.kept = fraction, s.now

	j.rec.Progress = pipeline.Progress{
		Percent: j.rec.Progress.Percent, MediaTime: r.Progress.MediaTime, Speed: finite(r.Progress.Speed), FPS: finite(r.Progress.FPS), ETA: r.Progress.ETA,
	}
	j.rise()

	p := j.view().Progress
	s.notify(j.rec.ID, pipeline.JobNotice{Run: j.rec.Run, Progress: &p})
}

// rise takes in what is done: the percent of a run never falls.
func (j *job) rise() {
	if weight := j.weight(); weight > 0 {
		j.rec.Progress.Percent = max(j.rec.Progress.Percent, min(unpublished, 100*j.done/weight))
	}
}

func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}

	return f
}

// FinishTask implements [pipeline.LeaseStore].
func (s *Store) FinishTask(_ context.Context, r pipeline.TaskResult) (pipeline.Verdict, bool, error) {
	defer s.begin()()

	for i, n := range r.Tasks {
		if slices.ContainsFunc(n.After, func(before int) bool { return before < 0 || before >= i }) {
			return "", false, badOrder()
		}
	}

	t := s.task(r.Ref.TaskID)

	switch {
	case t == nil:
		return pipeline.VerdictStale, false, nil
	case t.endedAs(r.WorkerID, r.Ref.Attempt, pipeline.OutcomeDone):
		return pipeline.VerdictAccepted, t.last, nil
	case !t.heldBy(r.WorkerID, r.Ref.Attempt):
		return pipeline.VerdictStale, false, nil
	}

	j := t.job
	if j.open() > 1 { // the last one leaves the rest to the job's end, as the script does
		j.done += t.rec.Weight * (1 - t.told)
		j.rise()
	}

	s.endAttempt(t, pipeline.OutcomeDone, nil, false)
	t.move(pipeline.TaskFinish)
	t.rec.Result = r.Result
	s.event(j, pipeline.EventTaskDone, t, nil)

	if r.Probe != nil {
		j.rec.Probe = r.Probe
	}

	if r.Plan != nil {
		j.rec.Plan, j.rec.Times.Planned = r.Plan, s.now
		j.left = j.left || r.Plan.HasMaterial()
		s.event(j, pipeline.EventPlanned, nil, nil)
	}

	s.addTasks(j, r.Tasks)

	for _, index := range t.follow {
		follower := j.tasks[index]
		if follower.waits--; follower.waits == 0 {
			s.ready(follower, pipeline.TaskUnblock)
		}
	}

	t.last = j.open() == 0

	switch {
	case t.last && len(r.Outputs) > 0:
		s.complete(j, r.Outputs)
	case t.last:
		delete(s.duties, dutyName{pipeline.DutyStream, j.rec.ID})
		s.duty(pipeline.DutyPublish, j.rec.ID, s.now.Add(publishGrace))
	}

	return pipeline.VerdictAccepted, t.last, nil
}

// FailTask implements [pipeline.LeaseStore].
func (s *Store) FailTask(_ context.Context, f pipeline.TaskFault) (pipeline.Verdict, error) {
	defer s.begin()()

	t := s.task(f.Ref.TaskID)

	switch {
	case t == nil:
		return pipeline.VerdictStale, nil
	case t.endedAs(f.WorkerID, f.Ref.Attempt, pipeline.OutcomeFailed):
		return pipeline.VerdictAccepted, nil
	case !t.heldBy(f.WorkerID, f.Ref.Attempt):
		return pipeline.VerdictStale, nil
	}

	if f.Class == pipeline.FaultMachine {
		s.failedByMachine(t, f)

		return pipeline.VerdictAccepted, nil
	}

	t.charged++
	t.spoilt = 0

	if f.Class == pipeline.FaultInput || t.charged >= f.Retry.MaxFailures {
		s.kill(t, pipeline.OutcomeFailed, &f.Failure, true)
	} else {
		s.rest(t, f, t.charged-1, true)
	}

	return pipeline.VerdictAccepted, nil
}

// failedByMachine lets others take the task: at once after the first fault in
// a row, and after a rest later, in which the same broken worker can't.
func (s *Store) failedByMachine(t *task, f pipeline.TaskFault) {
	if f.Failure.Reason == pipeline.ReasonEncoderMissing && t.spoilt > 0 { // another worker has the encoder, however long it is busy
		s.rest(t, f, 2, false)

		return
	}

	if t.spoilt == 0 || t.spoilt+1 >= maxMachineFaults {
		s.blame(t, pipeline.OutcomeFailed, &f.Failure)

		return
	}

	t.spoilt++
	s.rest(t, f, t.spoilt-2, false)
}

// rest delays a task; the pause doubles with each failure before this one.
func (s *Store) rest(t *task, f pipeline.TaskFault, before int, charged bool) {
	s.endAttempt(t, pipeline.OutcomeFailed, &f.Failure, charged)

	pause := min(float64(f.Retry.Backoff)*math.Pow(2, float64(before)), float64(max(f.Retry.Backoff, f.Retry.MaxBackoff)))
	pause *= 1 + f.Retry.Jitter*(2*s.jitter()-1)

	t.move(pipeline.TaskRetry)
	t.rec.NotBefore = s.now.Add(time.Duration(pause).Truncate(time.Millisecond))
	s.delayed[t] = struct{}{}
	s.due(t.rec.NotBefore)
	s.event(t.job, pipeline.EventTaskDelayed, t, &f.Failure)
}

// rested ends the rest of a task.
func (s *Store) rested(t *task) {
	t.rec.NotBefore = time.Time{}
	delete(s.delayed, t)
}

// ReleaseTask implements [pipeline.LeaseStore].
func (s *Store) ReleaseTask(_ context.Context, workerID string, ref pipeline.LeaseRef) (pipeline.Verdict, error) {
	defer s.begin()()

	t := s.task(ref.TaskID)

	switch {
	case t == nil:
		return pipeline.VerdictStale, nil
	case t.endedAs(workerID, ref.Attempt, pipeline.OutcomeReleased):
		return pipeline.VerdictAccepted, nil
	case !t.heldBy(workerID, ref.Attempt):
		return pipeline.VerdictStale, nil
	}

	s.giveBack(t, pipeline.TaskRelease, pipeline.OutcomeReleased, &pipeline.Failure{
		Reason: pipeline.ReasonWorkerDrained, Message: "The worker handed the task back.",
	})

	return pipeline.VerdictAccepted, nil
}
