package worker

import (
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
)

const (
	// maxRefused is how many sessions in a row end because a message is refused,
	// until every task that says something is ended.
	maxRefused = 3
	// maxSaidBytes is the most that the control plane reads of one message, less
	// what goes with it.
	maxSaidBytes = 16<<20 - 64<<10
)

// judge takes in whether a session ended because a message of it is refused.
// The same ones are said again on the next, so that one task's keep all the
// others from being heard: those whose words break the API's rules are ended at
// once. Where the control plane or a proxy has rules of its own nobody is known
// to: in the end all tasks are ended that say more than that they run.
func (l *loop) judge(err error) {
	if !refusedMessage(err) {
		l.refused = 0

		return
	}

	l.refused++

	var guilty, speaking []*heldTask

	for _, task := range l.tasks.inOrder() {
		words := l.words(task)
		if len(words) > 0 {
			speaking = append(speaking, task)
		}

		if progress := task.progress.Load(); progress != nil && task.report == nil {
			words = append(words, progress) // a heartbeat's part
		}

		if !allSayable(words) {
			guilty = append(guilty, task)
		}
	}

	if len(guilty) == 0 && l.refused%maxRefused == 0 {
		guilty = speaking
	}

	for _, task := range guilty {
		l.endRefused(task, err)
	}
}

// endRefused ends a task in a few words, as the machine's fault: the task may be
// innocent, since others make its words. One of which these are refused is forgotten.
func (l *loop) endRefused(task *heldTask, err error) {
	if task.refused {
		l.forget(task, "the control plane refuses its report")

		return
	}

	task.log.Error("the control plane refuses what is said of the task", "error", err)
	task.cancel(errStopped)
	task.refused = true
	l.report(task, faultReport(task.lease, refusedFault()))
}

// words are what is said of a task on every session until it is answered.
func (l *loop) words(task *heldTask) []proto.Message {
	var words []proto.Message
	if task.report != nil {
		words = append(words, task.report)
	} else if task.segments.waiting != nil {
		words = append(words, task.segments.waiting)
	}

	for id, call := range l.signs {
		if call.task == task {
			words = append(words, call.request(id))
		}
	}

	return words
}

// allSayable tells whether messages keep the rules that the control plane was
// built with, if it is as old as this worker.
func allSayable(messages []proto.Message) bool {
	for _, message := range messages {
		raw, err := proto.Marshal(message)
		if err != nil || len(raw) > maxSaidBytes || protovalidate.Validate(message) != nil {
			return false
		}
	}

	return true
}
