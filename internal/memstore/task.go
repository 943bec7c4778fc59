package memstore

import (
	"slices"
	"strconv"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// maxMachineFaults in a row kill a task: it spoils every machine, or finds none that works.
const maxMachineFaults = 10

// addTasks appends tasks to a job's run. Those that wait for none are ready.
func (s *Store) addTasks(j *job, news []pipeline.NewTask) {
	base := len(j.tasks)

	for i, n := range news {
		t := &task{job: j, index: base + i, waits: len(n.After), rec: pipeline.Task{
			ID: j.rec.ID + "-" + strconv.Itoa(base+i), JobID: j.rec.ID, Run: j.rec.Run, Kind: n.Kind,
			State: pipeline.TaskBlocked, Output: n.Output, Part: n.Part, Weight: n.Weight,
		}}
		j.tasks = append(j.tasks, t)

		for _, before := range n.After {
			j.tasks[base+before].follow = append(j.tasks[base+before].follow, t.index)
		}

		if t.waits == 0 {
			s.ready(t, pipeline.TaskUnblock)
		}
	}
}

// ready moves a task to READY and queues it.
func (s *Store) ready(t *task, by pipeline.TaskTransition) {
	if t.move(by) {
		s.turns.add(t.job.rec.Project, t.entry())
		s.touched[t.job.rec.Project] = struct{}{}
	}
}

// endAttempt takes the lease of a task away, and notes how the attempt ended.
func (s *Store) endAttempt(t *task, outcome pipeline.Outcome, f *pipeline.Failure, charged bool) {
	a := t.newest()
	a.Ended, a.Outcome, a.Failure, a.Charged = s.now, outcome, f, charged

	if outcome != pipeline.OutcomeDone {
		t.job.left = true
		t.job.done -= t.rec.Weight * t.told
		t.rec.Attempts = slices.Clone(t.rec.Attempts[max(0, len(t.rec.Attempts)-maxAttempts):])
	}

	t.worker, t.told = "", 0
	delete(s.leased, t)
	s.turns.project(t.job.rec.Project).running--
	s.touched[t.job.rec.Project] = struct{}{}
}

// giveBack ends an attempt without a charge: the task is READY.
func (s *Store) giveBack(t *task, by pipeline.TaskTransition, outcome pipeline.Outcome, f *pipeline.Failure) {
	s.endAttempt(t, outcome, f, false)
	s.ready(t, by)
	s.event(t.job, pipeline.EventTaskDelayed, t, f)
}

// blame ends an attempt that its machine spoilt: the task is READY, or DEAD
// when that happened too often in a row.
func (s *Store) blame(t *task, outcome pipeline.Outcome, f *pipeline.Failure) {
	t.spoilt++
	if t.spoilt >= maxMachineFaults {
		s.kill(t, outcome, f, false)
	} else {
		s.giveBack(t, pipeline.TaskRelease, outcome, f)
	}
}

// kill ends a task for good, and its job with it.
func (s *Store) kill(t *task, outcome pipeline.Outcome, f *pipeline.Failure, charged bool) {
	s.endAttempt(t, outcome, f, charged)
	t.move(pipeline.TaskKill)
	s.event(t.job, pipeline.EventTaskDead, t, f)
	t.job.move(pipeline.JobFail)
	s.cancelTasks(t.job)
	s.endJob(t.job, pipeline.EventFailed, f)
	s.cleanLater(t.job)
}

// cancelTasks ends every task of the run that hasn't ended.
func (s *Store) cancelTasks(j *job) {
	for _, t := range j.run() {
		was := t.rec.State
		if !t.move(pipeline.TaskCancel) {
			continue
		}

		switch was {
		case pipeline.TaskReady:
			s.turns.remove(j.rec.Project, t.entry())
			s.touched[j.rec.Project] = struct{}{}
		case pipeline.TaskDelayed:
			s.rested(t)
		case pipeline.TaskLeased:
			s.endAttempt(t, pipeline.OutcomeCanceled, nil, false)
			s.wake(pipeline.WakeWorker)
		default:
		}
	}
}
