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
	Silent     time.Duration // for how long no worker of it was attached; 0 if one is
	Busy       bool          // its worker holds tasks
	Draining   bool          // its workers take nothing more
	Outdated   bool          // it was made from an older image or settings
	HostLost   bool          // the provider can't see its host: it can't be started
	Unnamed    bool          // its record doesn't have its provider's id: the answer to its creation was lost
	Unseen     bool          // the provider wasn't asked this time: Instance and what follows from it aren't known
	Resting    bool          // something failed with it just now: it is left alone
}

// Stranger is an instance that carries the pool's mark and has no record.
type Stranger struct {
	ID         string // as it was made
	ProviderID string
	Attached   bool // a worker of it works for us
	Resting    bool
}

// Work is what waits and what runs.
type Work struct {
	Ready     int           // tasks that wait for a slot
	Waiting   time.Duration // estimate of what they take one slot
	Running   time.Duration // estimate of what is left of leased tasks, for one slot
	FreeSlots int           // of attached workers that take tasks
	BusySlots int
	OnlyLight bool // no encode waits, nor a job whose tasks aren't known yet
}

// Snapshot is all that a decision depends on.
type Snapshot struct {
	Settings        pipeline.PoolSettings
	SlotsPerMachine int // of a machine's worker, at least 1
	// Patience is for how long waiting work may go on waiting for the slots that
	// are there: no shorter than a machine takes to come, or it comes too late.
	Patience     time.Duration
	StartTimeout time.Duration // a worker has to attach, and may be silent
	StopTimeout  time.Duration // a machine has to stop
	Hold         bool          // growth failed just now: none until its backoff is over

	Machines  []Machine
	Strangers []Stranger
	Work      Work
}

// Kind is what to do.
type Kind string

// The kinds of action.
const (
	// Create makes a machine; one with an id was reserved before.
	Create Kind = "CREATE"
	// Start starts a stopped machine.
	Start Kind = "START"
	// StartAgain asks once more for a start that the provider wasn't ready for.
	StartAgain Kind = "START_AGAIN"
	// Stop asks a machine to stop.
	Stop Kind = "STOP"
	// Drain tells the workers of a machine to finish and leave.
	Drain Kind = "DRAIN"
	// Destroy removes a machine and its record.
	Destroy Kind = "DESTROY"
	// Adopt records a stranger.
	Adopt Kind = "ADOPT"
	// NoteCreated records a machine whose creation was not recorded.
	NoteCreated Kind = "NOTE_CREATED"
	// NoteAttached records that the worker of a machine is there.
	NoteAttached Kind = "NOTE_ATTACHED"
	// NoteDrain records that a machine takes nothing more.
	NoteDrain Kind = "NOTE_DRAIN"
	// NoteExit records that a machine stopped, and gives back what it held.
	NoteExit Kind = "NOTE_EXIT"
	// NoteBreak records that a machine is broken, gives back what it held, and
	// removes what is left of it.
	NoteBreak Kind = "NOTE_BREAK"
)

// Action is one thing to do.
type Action struct {
	Kind       Kind
	MachineID  string // empty for a new machine, and for a stranger that is destroyed
	ProviderID string
	Size       string // of a new machine
	Reason     string // for the log and the machine's failure
	// Fault is set if the machine failed by itself: the next one may as well, so
	// growth rests.
	Fault pipeline.ProblemKind
}

// Decide says what to do about a pool. It is pure. The machines never become
// more than the limit; deciding again once the actions have shown in the
// snapshot asks for no further growth.
func Decide(s Snapshot) []Action {
	var actions []Action
	machines := slices.SortedFunc(slices.Values(s.Machines), func(a, b Machine) int { return cmp.Compare(a.ID, b.ID) })
	fleet := fleet{}
	for _, m := range machines {
		action, boots := upkeep(s, m)
		if action.Kind != "" {
			action.MachineID, action.ProviderID = m.ID, m.ProviderID
			actions = append(actions, action)
		}
		fleet.count(m, action.Kind, boots)
	}
	total := len(machines)
	for _, x := range s.Strangers {
		action := Action{Kind: Destroy, ProviderID: x.ProviderID, Reason: "the store doesn't know it"}
		if x.Attached && total < s.Settings.Limit {
			action = Action{Kind: Adopt, MachineID: x.ID, ProviderID: x.ProviderID, Reason: "its worker works for this pool"}
		} else {
			fleet.leaving++
		}
		if !x.Resting {
			actions = append(actions, action)
		}
		total++ // until it is gone it takes a place
	}
	over := total - fleet.leaving - s.Settings.Limit
	grown := grow(s, &fleet, total)
	actions = append(actions, grown...)
	return append(actions, shrink(s, &fleet, over, len(grown) > 0)...)
}

// fleet sorts machines by what can be done with them.
type fleet struct {
	coming  int // their slots are about to come
	there   int // take tasks now
	going   int // finish what they have, then stop
	leaving int // are removed
	stopped []Machine
	idle    []Machine // take tasks, have none
	busy    []Machine // take tasks, have some
}

func (f *fleet) count(m Machine, action Kind, boots bool) {
	switch {
	case boots:
		f.coming++
	case action == Destroy, m.State == pipeline.MachineFailed, m.State == pipeline.MachineDestroyed:
		f.leaving++
	case action != "":
	case m.State == pipeline.MachineStopped:
		if !m.Resting {
			f.stopped = append(f.stopped, m)
		}
	case m.State == pipeline.MachineDraining, m.State == pipeline.MachineStopping, m.Draining:
		f.going++
	case m.State == pipeline.MachineRunning:
		f.there++
		if m.Busy {
			f.busy = append(f.busy, m)
		} else if m.Silent == 0 {
			f.idle = append(f.idle, m)
		}
	}
}

// grow adds machines for the work and for the number that is kept warm: first
// stopped ones, then new ones below the limit.
func grow(s Snapshot, f *fleet, total int) []Action {
	if s.Hold {
		return nil
	}
	var actions []Action
	missing, reason := missing(s, f)
	f.stopped = slices.DeleteFunc(f.stopped, func(m Machine) bool {
		if missing <= 0 || m.HostLost || m.Outdated {
			return false
		}
		missing--
		actions = append(actions, Action{Kind: Start, MachineID: m.ID, ProviderID: m.ProviderID, Reason: reason})
		return true
	})
	size := s.Settings.EncodeSize
	if s.Work.OnlyLight && s.Settings.LightSize != "" {
		size = s.Settings.LightSize
	}
	// Records of any state count: a failed machine may still be there.
	for range max(0, min(missing, s.Settings.Limit-total)) {
		actions = append(actions, Action{Kind: Create, Size: size, Reason: reason})
	}
	return actions
}

// missing is how many machines are wanted beyond those that are there or come.
func missing(s Snapshot, f *fleet) (int, string) {
	slots := max(1, s.SlotsPerMachine)
	work := (missingSlots(s, f.coming*slots, f.there) + slots - 1) / slots
	warm := s.Settings.MinWarm - f.there - f.coming
	if warm > work {
		return warm, "machines are kept warm"
	}
	return max(0, work), "tasks wait"
}

// missingSlots is how many more slots the waiting work needs to be done within
// the patience. No task needs more than one.
func missingSlots(s Snapshot, coming, there int) int {
	w := s.Work
	if w.Ready == 0 {
		return 0
	}
	patience := max(s.Patience, time.Second)
	// Slots that get free in time do some of it.
	waiting := w.Waiting
	if w.BusySlots > 0 {
		waiting -= time.Duration(w.BusySlots) * max(0, patience-w.Running/time.Duration(w.BusySlots))
	}
	need := min(w.Ready, int((waiting+patience-1)/patience))
	if there == 0 && w.FreeSlots+w.BusySlots == 0 {
		need = max(need, 1) // nobody else will ever do it
	}
	return max(0, need-w.FreeSlots-coming)
}

// shrink removes machines that aren't needed: those beyond the limit, stopped
// ones beyond those that are kept, and outdated ones once they are idle.
func shrink(s Snapshot, f *fleet, over int, growing bool) []Action {
	var actions []Action
	kept := 0
	for _, m := range f.stopped {
		var reason string
		switch {
		case over > 0:
			over--
			reason = "the limit is lower now"
		case m.Outdated:
			reason = "it runs an older version"
		case m.HostLost:
			reason = "its host is lost"
		case kept >= s.Settings.KeepStopped:
			reason = "it isn't needed"
		default:
			kept++
			continue
		}
		actions = append(actions, Action{Kind: Destroy, MachineID: m.ID, ProviderID: m.ProviderID, Reason: reason})
	}
	over -= f.going
	for _, m := range append(slices.Clone(f.idle), f.busy...) {
		if over <= 0 {
			break
		}
		over--
		actions = append(actions, Action{Kind: Drain, MachineID: m.ID, ProviderID: m.ProviderID, Reason: "the limit is lower now"})
	}
	if growing || f.coming+f.going > 0 || s.Work.Ready > 0 || len(actions) > 0 {
		return actions
	}
	for _, m := range f.idle {
		if m.Outdated {
			// One at a time, so that some stay warm.
			return []Action{{Kind: Drain, MachineID: m.ID, ProviderID: m.ProviderID, Reason: "it runs an older version"}}
		}
	}
	return actions
}
