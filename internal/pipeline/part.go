package pipeline

import (
	"cmp"
	"slices"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// Parts returns what the done tasks of a job's run made, by output, each in
// playback order. growth is what lost attempts had committed before.
func Parts(job Job, growth *media.Growth) map[string][]media.Part {
	tasks := slices.Clone(job.Tasks)
	slices.SortFunc(tasks, func(a, b Task) int { return cmp.Compare(a.index(), b.index()) })
	parts := map[string][]media.Part{}
	for _, task := range tasks {
		if part, ok := task.part(); ok && task.Run == job.Run {
			part.Committed = func(rendition string) *media.Committed {
				return growth.Committed(task.Output, task.Part, rendition)
			}
			parts[task.Output] = append(parts[task.Output], part)
		}
	}
	return parts
}

// OutputsOf returns the outputs of a job that a task's result is all of, and
// of which a player needs nothing else: files. Nil if there is more, which
// somebody has to put together once all tasks are done.
func OutputsOf(job Job, task Task, attempt int, result media.EncodeResult) []media.Output {
	if job.Plan == nil {
		return nil
	}
	makers := 0
	for _, planned := range media.Tasks(*job.Plan) {
		if planned.Output == task.Output {
			makers++
		}
	}
	var outputs []media.Output
	for _, plan := range job.Plan.Outputs {
		if plan.Intermediate {
			continue
		}
		if plan.Name != task.Output || plan.Kind != media.KindMP4 || makers != 1 {
			return nil
		}
		part := media.Part{Dir: media.AttemptDir(task.index(), attempt), Result: result}
		output, _ := media.Assemble(plan, []media.Part{part}, media.OutputPrefix(job.Project, job.ID, plan.Name), job.Run)
		outputs = append(outputs, output)
	}
	return outputs
}

// Repeated reports whether a done task of a job's run took more than one
// attempt: another one may have committed some of what it made. Otherwise the
// results name all of it.
func Repeated(job Job) bool {
	return slices.ContainsFunc(job.Tasks, func(t Task) bool {
		return t.Run == job.Run && t.Result != nil && len(t.Attempts) > 1
	})
}

// Growth is what a job's stream has of a run.
func (s Stream) Growth(run int) *media.Growth {
	growth := &media.Growth{}
	if s.Run == run {
		for _, c := range s.Commits {
			growth.Add(c.Output, c.Part, media.AttemptDir(c.Task, c.Attempt), c.Uploaded)
		}
	}
	return growth
}

// index is the task's place in playback order.
func (t Task) index() int {
	_, index, _ := media.SplitTaskID(t.ID)
	return index
}

// part is what a done task made; false for one that makes nothing.
func (t Task) part() (media.Part, bool) {
	if t.Result == nil {
		return media.Part{}, false
	}
	for _, attempt := range t.Attempts {
		if attempt.Outcome == OutcomeDone {
			return media.Part{Dir: media.AttemptDir(t.index(), attempt.Number), Result: *t.Result}, true
		}
	}
	return media.Part{}, false
}
