package autoscale

import (
	"cmp"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Machine is one machine as the store and its provider see it.
type Machine struct {
	ID         string
	ProviderID string
	State      pipeline.MachineState
	Instance   machine.State // empty: the provider doesn't have it
	InState    time.Duration // since State changed
	Silent     time.Duration // for how long no worker of it was heard of; 0 if one is
	Draining   bool          // its workers take nothing more
}

// Snapshot is all that a decision depends on.
type Snapshot struct {
	Limit           int // machines there may be, whatever their state
	SlotsPerMachine int // of a machine's worker, at least 1
	KeepStopped     int // stopped machines that are kept for reuse
	StartTimeout    time.Duration
	StopTimeout     time.Duration
	Hold            bool // growth failed just now: none until its backoff is over

	Machines   []Machine
	Orphans    []string // provider's ids of instances that the store doesn't know
	FreeSlots  int      // of attached workers that take tasks
	ReadyTasks int
}

// Kind is what to do.
type Kind string

// The kinds of action.
const (
	// Create makes a machine; one with an id was reserved before.
	Create Kind = "CREATE"
	// Start starts a stopped machine.
	Start Kind = "START"
	// Stop asks a machine to stop.
	Stop Kind = "STOP"
	// Destroy removes a machine and its record.
	Destroy Kind = "DESTROY"
	// NoteCreated records a machine whose creation was not recorded.
	NoteCreated Kind = "NOTE_CREATED"
	// NoteDrain records that a machine takes nothing more.
	NoteDrain Kind = "NOTE_DRAIN"
	// NoteExit records that a machine stopped, and gives back what it held.
	NoteExit Kind = "NOTE_EXIT"
	// NoteBreak records that a machine is broken, removes what is left of it,
	// and gives back what it held.
	NoteBreak Kind = "NOTE_BREAK"
)

// Action is one thing to do.
type Action struct {
	Kind       Kind
	MachineID  string // empty for a new machine, and for an orphan
	ProviderID string
	Reason     string // for the log and the machine's failure
	Fault      bool   // the machine failed by itself: the next may as well, so growth rests
}

// Decide says what to do about a pool. It is pure. The machines never become
// more than the limit; deciding again once the actions have shown in the
// snapshot asks for no further growth.
func Decide(s Snapshot) []Action {
	var actions []Action
	var stopped []Machine
	coming := 0
	machines := slices.SortedFunc(slices.Values(s.Machines), func(a, b Machine) int { return cmp.Compare(a.ID, b.ID) })
	for _, m := range machines {
		action, boots := upkeep(s, m)
		if boots {
			coming++
		}
		if action.Kind != "" {
			action.MachineID, action.ProviderID = m.ID, m.ProviderID
			actions = append(actions, action)
		} else if m.State == pipeline.MachineStopped {
			stopped = append(stopped, m)
		}
	}
	for _, id := range s.Orphans {
		actions = append(actions, Action{Kind: Destroy, ProviderID: id, Reason: "the store doesn't know it"})
	}

	missing := 0
	if !s.Hold {
		missing = demand(s, coming)
	}
	started := min(missing, len(stopped))
	for _, m := range stopped[:started] {
		actions = append(actions, Action{Kind: Start, MachineID: m.ID, ProviderID: m.ProviderID, Reason: "tasks wait"})
	}
	for _, m := range stopped[min(len(stopped), started+s.KeepStopped):] {
		actions = append(actions, Action{Kind: Destroy, MachineID: m.ID, ProviderID: m.ProviderID, Reason: "it isn't needed"})
	}
	// Records of any state count: a failed machine may still be there.
	for range max(0, min(missing-started, s.Limit-len(s.Machines))) {
		actions = append(actions, Action{Kind: Create, Reason: "tasks wait"})
	}
	return actions
}

// demand is how many machines the waiting tasks ask for, beyond those that
// are there or come.
func demand(s Snapshot, coming int) int {
	slots := max(1, s.SlotsPerMachine)
	uncovered := s.ReadyTasks - s.FreeSlots - coming*slots
	return max(0, (uncovered+slots-1)/slots)
}

// upkeep says what one machine needs, whatever the demand, and whether its
// slots are about to come.
func upkeep(s Snapshot, m Machine) (Action, bool) {
	gone := m.Instance == "" || m.Instance == machine.Failed
	switch m.State {
	case pipeline.MachineCreating:
		if m.Instance == "" {
			return Action{Kind: Create, Reason: "its creation was cut off"}, true
		}
		return Action{Kind: NoteCreated}, true
	case pipeline.MachineStarting:
		switch {
		case m.Instance == "":
			return Action{Kind: NoteBreak, Reason: "it is gone"}, false
		case gone, m.Instance == machine.Stopped:
			return Action{Kind: NoteBreak, Reason: "it ended before its worker attached", Fault: true}, false
		case m.InState > s.StartTimeout:
			return Action{Kind: NoteBreak, Reason: "its worker didn't attach in time", Fault: true}, false
		}
		return Action{}, true
	case pipeline.MachineRunning, pipeline.MachineDraining:
		return whileRunning(s, m, gone), false
	case pipeline.MachineStopping:
		switch {
		case gone:
			return Action{Kind: NoteBreak, Reason: "it broke while it was stopping"}, false
		case m.Instance == machine.Stopped:
			return Action{Kind: NoteExit}, false
		case m.InState > s.StopTimeout:
			return Action{Kind: NoteBreak, Reason: "it didn't stop in time"}, false
		}
	case pipeline.MachineStopped:
		switch m.Instance {
		case "", machine.Failed:
			return Action{Kind: Destroy, Reason: "its provider doesn't have it"}, false
		case machine.Starting, machine.Running:
			return Action{Kind: Stop, Reason: "it runs though it was stopped"}, false
		case machine.Stopping, machine.Stopped:
		}
	case pipeline.MachineFailed, pipeline.MachineDestroyed:
		return Action{Kind: Destroy, Reason: "it failed"}, false
	}
	return Action{}, false
}

func whileRunning(s Snapshot, m Machine, gone bool) Action {
	switch {
	case m.Instance == "":
		return Action{Kind: NoteBreak, Reason: "it is gone"}
	case gone:
		return Action{Kind: NoteBreak, Reason: "it ended by itself with an error", Fault: true}
	case m.Instance == machine.Stopped:
		return Action{Kind: NoteExit}
	case m.Silent > s.StartTimeout:
		return Action{Kind: Stop, Reason: "its worker is silent"}
	case m.State == pipeline.MachineRunning && m.Draining:
		return Action{Kind: NoteDrain}
	default:
		return Action{}
	}
}
