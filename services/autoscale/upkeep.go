package autoscale

import (
	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// upkeep says what one machine needs, whatever the demand, and whether its
// slots are about to come.
func upkeep(s Snapshot, m Machine) (Action, bool) {
	boots := m.State == pipeline.MachineCreating || m.State == pipeline.MachineStarting
	if m.Resting {
		return Action{}, boots
	}
	gone := m.Instance == "" || m.Instance == machine.Failed
	switch m.State {
	case pipeline.MachineCreating:
		switch {
		case m.Instance != "" && !m.Unseen:
			return Action{Kind: NoteCreated}, true
		case !m.Unseen && m.InState > s.StartTimeout:
			return Action{Kind: NoteBreak, Reason: "it was never made"}, false
		case s.Hold:
			return Action{}, true
		}
		return Action{Kind: Create, Reason: "its creation was cut off"}, true
	case pipeline.MachineStarting:
		return whileStarting(s, m)
	case pipeline.MachineRunning, pipeline.MachineDraining:
		if m.Unseen {
			return Action{}, false
		}
		return whileRunning(s, m), false
	case pipeline.MachineStopping:
		switch {
		case m.Unseen:
		case gone:
			return Action{Kind: NoteBreak, Reason: "it broke while it was stopping"}, false
		case m.Instance == machine.Stopped:
			return Action{Kind: NoteExit}, false
		case m.InState > s.StopTimeout:
			return Action{Kind: NoteBreak, Reason: "it didn't stop in time"}, false
		}
	case pipeline.MachineStopped:
		switch {
		case m.Unseen:
		case gone:
			return Action{Kind: Destroy, Reason: "its provider doesn't have it"}, false
		case m.Instance == machine.Starting, m.Instance == machine.Running:
			return Action{Kind: Stop, Reason: "it runs though it was stopped"}, false
		}
	case pipeline.MachineFailed, pipeline.MachineDestroyed:
		if m.ProviderID == "" && m.Unseen {
			// Who led before may have asked for it too, and was answered otherwise: it
			// takes its place until the list has shown that it isn't there.
			return Action{}, false
		}
		return Action{Kind: Destroy, Reason: "it failed"}, false
	}
	return Action{}, false
}

func whileStarting(s Snapshot, m Machine) (Action, bool) {
	late := m.InState > s.StartTimeout
	switch {
	case m.Unseen && !late:
		return Action{}, true
	case m.Silent == 0 && (m.Unseen || m.Instance == machine.Running):
		return Action{Kind: NoteAttached}, true
	case late:
		return Action{Kind: NoteBreak, Reason: "its worker didn't attach in time", Fault: pipeline.ProblemNotBooting}, false
	case m.Instance == "":
		return Action{Kind: NoteBreak, Reason: "it is gone"}, false
	case m.Instance == machine.Failed:
		return Action{Kind: NoteBreak, Reason: "it ended before its worker attached", Fault: pipeline.ProblemNotBooting}, false
	case m.Instance == machine.Stopped && !s.Hold:
		return Action{Kind: StartAgain, Reason: "it hasn't started yet"}, true
	}
	return Action{}, true
}

func whileRunning(s Snapshot, m Machine) Action {
	switch {
	case m.Instance == "" && m.ProviderID == "" && m.Silent == 0:
		return Action{} // its creation isn't answered yet, and a list is late
	case m.Instance == "":
		return Action{Kind: NoteBreak, Reason: "it is gone"}
	case m.Instance == machine.Failed:
		return Action{Kind: NoteBreak, Reason: "it ended by itself with an error", Fault: pipeline.ProblemCrashed}
	case m.Instance == machine.Stopped:
		return Action{Kind: NoteExit}
	case m.Silent > s.StartTimeout && m.HostLost:
		return Action{Kind: NoteBreak, Reason: "its host is lost, and its worker is silent"}
	case m.Silent > s.StartTimeout:
		return Action{Kind: Stop, Reason: "its worker is silent"}
	case m.State == pipeline.MachineRunning && m.Draining:
		return Action{Kind: NoteDrain}
	case m.Unnamed:
		return Action{Kind: NoteCreated}
	default:
		return Action{}
	}
}

// doubtful reports whether an action ends something because of what the list
// of the provider shows, which may be late.
func doubtful(a Action) bool {
	switch a.Kind {
	case NoteBreak, NoteExit, Stop, Destroy, StartAgain:
		return true
	case Create, Start, Drain, Adopt, NoteCreated, NoteAttached, NoteDrain:
	}
	return false
}
