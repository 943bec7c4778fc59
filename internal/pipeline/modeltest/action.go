package modeltest

import (
	"fmt"

	"pgregory.net/rapid"
)

// actions are the steps of a case, by how often they are taken. Rapid takes
// the first by name somewhat more often: those that lead far come first.
func (w *world) actions() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){}

	for i, a := range []struct {
		name  string
		often int
		step  func(*rapid.T)
	}{
		{"Finish", 6, w.finish},
		{"Claim", 6, w.claim},
		{"CreateJob", 3, w.createJob},
		{"Fail", 4, w.fail},
		{"Renew", 3, w.renew},
		{"Sweep", 4, w.sweep},
		{"TimePasses", 2, w.timePasses},
		{"TimePassesSlowly", 2, w.timePassesSlowly},
		{"ComesAgain", 3, w.comesAgain},
		{"Attach", 2, w.attach},
		{"CompleteJob", 2, w.completeJob},
		{"EndDuty", 2, w.endDuty},
		{"CreateUpload", 2, w.createUpload},
		{"CompleteUpload", 2, w.completeUpload},
		{"CommitSegments", 3, w.commitSegments},
		{"StreamPublished", 2, w.streamPublished},
		{"Release", 2, w.release},
		{"RetryJob", 2, w.retryJob},
		{"MoveMachine", 2, w.moveMachine},
		{"LoseMachine", 1, w.loseMachine},
		{"ReserveMachine", 1, w.reserveMachine},
		{"CancelJob", 1, w.cancelJob},
		{"DeleteJob", 1, w.deleteJob},
		{"EndUpload", 1, w.endUpload},
		{"Detach", 1, w.detach},
		{"Leave", 1, w.leave},
		{"Drain", 1, w.drain},
		{"Resign", 1, w.resign},
		{"ReadStream", 1, w.readStream},
		{"ChangePool", 1, w.changePool},
		{"ReportPool", 1, w.reportPool},
	} {
		for n := range a.often {
			all[fmt.Sprintf("%02d %s %d", i, a.name, n)] = a.step
		}
	}

	return all
}

// seldom skips a step that would soon leave no worker to work with.
func seldom(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "seldom") < 3 {
		t.Skip()
	}
}
