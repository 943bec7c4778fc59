package autoscale

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const long = time.Hour

// snapshot has tasks of a minute each, and machines of two slots that take ten
// seconds to come.
func snapshot(ready, free int, machines ...Machine) Snapshot {
	for i := range machines {
		machines[i].ID = fmt.Sprintf("m%d", i)
		machines[i].ProviderID = "p" + machines[i].ID
	}
	return Snapshot{
		Settings: pipeline.PoolSettings{Limit: 3}, SlotsPerMachine: 2, Patience: 10 * time.Second,
		StartTimeout: time.Minute, StopTimeout: time.Minute, Machines: machines,
		Work: Work{Ready: ready, Waiting: time.Duration(ready) * time.Minute, FreeSlots: free},
	}
}

func kinds(actions []Action) []string {
	var got []string
	for _, a := range actions {
		got = append(got, string(a.Kind)+" "+a.MachineID)
	}
	return got
}

// TestDecide: what is done about each situation.
func TestDecide(t *testing.T) {
	t.Parallel()
	running := Machine{State: pipeline.MachineRunning, Instance: machine.Running}
	starting := Machine{State: pipeline.MachineStarting, Instance: machine.Running, Silent: 1}
	stopped := Machine{State: pipeline.MachineStopped, Instance: machine.Stopped, Silent: 1}
	with := func(m Machine, edit func(*Machine)) Machine {
		edit(&m)
		return m
	}
	outdated := func(m Machine) Machine { return with(m, func(m *Machine) { m.Outdated = true }) }
	set := func(s Snapshot, edit func(*Snapshot)) Snapshot {
		edit(&s)
		return s
	}
	keep := func(n int) func(*Snapshot) { return func(s *Snapshot) { s.Settings.KeepStopped = n } }
	limit := func(n int) func(*Snapshot) { return func(s *Snapshot) { s.Settings.Limit = n } }
	hold := func(s *Snapshot) { s.Hold = true }
	stranger := func(attached bool) func(*Snapshot) {
		return func(s *Snapshot) { s.Strangers = []Stranger{{ID: "x", ProviderID: "px", Attached: attached}} }
	}
	for name, test := range map[string]struct {
		snapshot Snapshot
		want     []string
	}{
		"nothing to do":                      {snapshot(0, 0), nil},
		"one task, no machine":               {snapshot(1, 0), []string{"CREATE "}},
		"two tasks fit one machine":          {snapshot(2, 0), []string{"CREATE "}},
		"three tasks need two":               {snapshot(3, 0), []string{"CREATE ", "CREATE "}},
		"never beyond the limit":             {snapshot(99, 0), []string{"CREATE ", "CREATE ", "CREATE "}},
		"free slots come first":              {snapshot(2, 2, running), nil},
		"machines that boot count":           {snapshot(2, 0, starting), nil},
		"more than those can take":           {snapshot(3, 0, starting), []string{"CREATE "}},
		"at the limit":                       {snapshot(9, 0, running, running, running), nil},
		"growth rests after a failure":       {set(snapshot(9, 0), hold), nil},
		"a stopped machine is started first": {snapshot(1, 0, stopped), []string{"START m0"}},
		"then one is created":                {snapshot(3, 0, stopped), []string{"START m0", "CREATE "}},
		"a lost host can't start":            {snapshot(1, 0, with(stopped, func(m *Machine) { m.HostLost = true })), []string{"CREATE ", "DESTROY m0"}},
		"a surplus one is destroyed":         {snapshot(0, 0, stopped), []string{"DESTROY m0"}},
		"some are kept":                      {set(snapshot(0, 0, stopped, stopped), keep(1)), []string{"DESTROY m1"}},
		"a stranger is destroyed":            {set(snapshot(0, 0), stranger(false)), []string{"DESTROY "}},
		"one that works is adopted":          {set(snapshot(0, 0), stranger(true)), []string{"ADOPT x"}},
		"unless that were one too many":      {set(snapshot(0, 0, running, running, running), stranger(true)), []string{"DESTROY "}},
		"a stranger takes a place":           {set(snapshot(9, 0, running, running), stranger(false)), []string{"DESTROY "}},

		"short work waits for who is busy": {set(snapshot(4, 0, running), func(s *Snapshot) {
			s.Work = Work{Ready: 4, Waiting: 8 * time.Second, BusySlots: 2, Running: 2 * time.Second}
		}), nil},
		"unless they are busy for long": {set(snapshot(4, 0, running), func(s *Snapshot) {
			s.Work = Work{Ready: 4, Waiting: 8 * time.Second, BusySlots: 2, Running: time.Hour}
		}), []string{"CREATE "}},
		"many short tasks need few machines": {set(snapshot(40, 0), func(s *Snapshot) { s.Work.Waiting = 40 * time.Second }), []string{"CREATE ", "CREATE "}},
		"chunks of a job need many at once":  {set(snapshot(6, 0), func(s *Snapshot) { s.Work.Waiting = 60 * time.Second }), []string{"CREATE ", "CREATE ", "CREATE "}},

		"some are kept warm": {set(snapshot(0, 0, stopped), func(s *Snapshot) { s.Settings.MinWarm = 2 }), []string{"START m0", "CREATE "}},
		"and counted":        {set(snapshot(0, 2, running, starting), func(s *Snapshot) { s.Settings.MinWarm = 2 }), nil},

		"a lower limit takes the stopped first": {set(snapshot(0, 0, running, stopped), limit(1)), []string{"DESTROY m1"}},
		"then those without work": {
			set(snapshot(0, 0, with(running, func(m *Machine) { m.Busy = true }), running), limit(1)), []string{"DRAIN m1"},
		},
		"then the others": {
			set(snapshot(0, 0, with(running, func(m *Machine) { m.Busy = true }), running), limit(0)), []string{"DRAIN m1", "DRAIN m0"},
		},
		"each once": {set(snapshot(0, 0, running, Machine{State: pipeline.MachineDraining, Instance: machine.Running}), limit(1)), nil},

		"an older version is replaced when it is idle": {snapshot(0, 2, outdated(running), outdated(running)), []string{"DRAIN m0"}},
		"one at a time": {snapshot(0, 2, outdated(running), Machine{State: pipeline.MachineDraining, Instance: machine.Running}), nil},
		"not while it works": {
			snapshot(0, 2, with(outdated(running), func(m *Machine) { m.Busy = true })), nil,
		},
		"nor is it started":            {set(snapshot(1, 0, outdated(stopped)), keep(1)), []string{"CREATE ", "DESTROY m0"}},
		"or kept":                      {set(snapshot(0, 0, outdated(stopped)), keep(1)), []string{"DESTROY m0"}},
		"what rests is left alone":     {snapshot(0, 0, with(stopped, func(m *Machine) { m.Resting = true })), nil},
		"a creation that was cut off":  {snapshot(0, 0, Machine{State: pipeline.MachineCreating, Silent: 1}), []string{"CREATE m0"}},
		"it is no second machine":      {snapshot(2, 0, Machine{State: pipeline.MachineCreating, Silent: 1}), []string{"CREATE m0"}},
		"it waits for growth to begin": {set(snapshot(0, 0, Machine{State: pipeline.MachineCreating, Silent: 1}), hold), nil},
		"a creation that wasn't recorded": {
			snapshot(0, 0, Machine{State: pipeline.MachineCreating, Instance: machine.Running, Silent: 1}), []string{"NOTE_CREATED m0"},
		},
		"a creation that was answered to nobody": {
			snapshot(0, 0, with(running, func(m *Machine) { m.Busy, m.Unnamed = true, true })), []string{"NOTE_CREATED m0"},
		},
		"a boot in time":           {snapshot(0, 0, with(starting, func(m *Machine) { m.Silent = long })), nil},
		"a boot that hangs":        {snapshot(0, 0, with(starting, func(m *Machine) { m.InState = long })), []string{"NOTE_BREAK m0"}},
		"a boot that failed":       {snapshot(0, 0, with(starting, func(m *Machine) { m.Instance = machine.Failed })), []string{"NOTE_BREAK m0"}},
		"a boot without a machine": {snapshot(0, 0, with(starting, func(m *Machine) { m.Instance = "" })), []string{"NOTE_BREAK m0"}},
		"a start that wasn't taken": {
			snapshot(0, 0, with(starting, func(m *Machine) { m.Instance = machine.Stopped })), []string{"START_AGAIN m0"},
		},
		"a worker that is there": {snapshot(0, 0, with(starting, func(m *Machine) { m.Silent = 0 })), []string{"NOTE_ATTACHED m0"}},
		"nobody looked":          {snapshot(0, 0, with(starting, func(m *Machine) { m.Instance, m.Unseen = "", true })), nil},
		"a machine that is gone": {snapshot(0, 0, with(running, func(m *Machine) { m.Instance = "" })), []string{"NOTE_BREAK m0"}},
		"a machine that crashed": {snapshot(0, 0, with(running, func(m *Machine) { m.Instance = machine.Failed })), []string{"NOTE_BREAK m0"}},
		"not in a late list":     {snapshot(0, 0, with(running, func(m *Machine) { m.Instance, m.Unseen = "", true })), nil},
		"its place is taken at the next look": {
			snapshot(1, 0, with(running, func(m *Machine) { m.Instance = "" }), running, running), []string{"NOTE_BREAK m0"},
		},
		"a worker that left":       {snapshot(0, 0, with(running, func(m *Machine) { m.Instance = machine.Stopped })), []string{"NOTE_EXIT m0"}},
		"a worker that is silent":  {snapshot(0, 0, with(running, func(m *Machine) { m.Silent = long })), []string{"STOP m0"}},
		"on a host that is lost":   {snapshot(0, 0, with(running, func(m *Machine) { m.Silent, m.HostLost = long, true })), []string{"NOTE_BREAK m0"}},
		"a worker that drains":     {snapshot(0, 0, with(running, func(m *Machine) { m.Draining = true })), []string{"NOTE_DRAIN m0"}},
		"it is noted once":         {snapshot(0, 0, Machine{State: pipeline.MachineDraining, Instance: machine.Running, Draining: true}), nil},
		"a stop takes its time":    {snapshot(0, 0, Machine{State: pipeline.MachineStopping, Instance: machine.Stopping}), nil},
		"a stop that hangs":        {snapshot(0, 0, Machine{State: pipeline.MachineStopping, Instance: machine.Stopping, InState: long}), []string{"NOTE_BREAK m0"}},
		"a stop that came to pass": {snapshot(0, 0, Machine{State: pipeline.MachineStopping, Instance: machine.Stopped}), []string{"NOTE_EXIT m0"}},
		"a stop that broke":        {snapshot(0, 0, Machine{State: pipeline.MachineStopping}), []string{"NOTE_BREAK m0"}},
		"stopped, and gone":        {snapshot(0, 0, Machine{State: pipeline.MachineStopped}), []string{"DESTROY m0"}},
		"stopped, but running":     {snapshot(0, 0, Machine{State: pipeline.MachineStopped, Instance: machine.Running}), []string{"STOP m0"}},
		"a failed one that may be there takes its place": {
			set(snapshot(9, 0, Machine{State: pipeline.MachineFailed, Unseen: true}, running, running), func(s *Snapshot) { s.Machines[0].ProviderID = "" }), nil,
		},
		"a failed one that isn't there gives it up": {
			set(snapshot(0, 0, Machine{State: pipeline.MachineFailed}), func(s *Snapshot) { s.Machines[0].ProviderID = "" }), []string{"DESTROY m0"},
		},
		"a failed one is destroyed": {snapshot(0, 0, Machine{State: pipeline.MachineFailed, Instance: machine.Running}), []string{"DESTROY m0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, kinds(Decide(test.snapshot)))
		})
	}
}

// TestDecideSizes: a machine is made in the size that the waiting work is for.
func TestDecideSizes(t *testing.T) {
	t.Parallel()
	s := snapshot(1, 0)
	s.Settings.EncodeSize = "performance-8x"
	require.Equal(t, "performance-8x", Decide(s)[0].Size)
	s.Work.OnlyLight = true
	require.Equal(t, "performance-8x", Decide(s)[0].Size)
	s.Settings.LightSize = "performance-1x"
	require.Equal(t, "performance-1x", Decide(s)[0].Size)
}

// anyPool draws what a pool may look like.
func anyPool(t *rapid.T) Snapshot {
	seconds := func(most int, name string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Second
	}
	s := Snapshot{
		Settings: pipeline.PoolSettings{
			Limit:       rapid.IntRange(0, 6).Draw(t, "limit"),
			KeepStopped: rapid.IntRange(0, 2).Draw(t, "keep"),
		},
		SlotsPerMachine: rapid.IntRange(1, 4).Draw(t, "slots"),
		Patience:        seconds(20, "patience"),
		StartTimeout:    time.Minute, StopTimeout: time.Minute,
		Hold: rapid.Bool().Draw(t, "hold"),
		Work: Work{
			Ready:     rapid.IntRange(0, 40).Draw(t, "ready"),
			FreeSlots: rapid.IntRange(0, 9).Draw(t, "free"),
			BusySlots: rapid.IntRange(0, 9).Draw(t, "busy"),
			Running:   seconds(100, "running"),
			OnlyLight: rapid.Bool().Draw(t, "light"),
		},
	}
	s.Settings.MinWarm = rapid.IntRange(0, s.Settings.Limit).Draw(t, "warm")
	s.Work.Waiting = time.Duration(s.Work.Ready) * (seconds(60, "a task") + time.Millisecond)
	for i := range rapid.IntRange(0, s.Settings.Limit+1).Draw(t, "machines") {
		s.Machines = append(s.Machines, Machine{
			ID:       fmt.Sprintf("m%d", i),
			State:    rapid.SampledFrom(states()).Draw(t, "state"),
			Instance: rapid.SampledFrom(instances()).Draw(t, "instance"),
			InState:  seconds(120, "in state"),
			Silent:   seconds(120, "silent"),
			Busy:     rapid.Bool().Draw(t, "works"),
			Draining: rapid.Bool().Draw(t, "draining"),
			Outdated: rapid.Bool().Draw(t, "outdated"),
			HostLost: rapid.Bool().Draw(t, "host lost"),
			Unnamed:  rapid.Bool().Draw(t, "unnamed"),
			Unseen:   rapid.Bool().Draw(t, "unseen"),
			Resting:  rapid.IntRange(0, 4).Draw(t, "resting") == 0,
		})
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "strangers") {
		id := fmt.Sprintf("s%d", i)
		s.Strangers = append(s.Strangers, Stranger{ID: id, ProviderID: "p" + id, Attached: rapid.Bool().Draw(t, "attached")})
	}
	return s
}

// TestDecideIsBounded: whatever a pool looks like, the machines never become
// more than the limit, no machine is acted on twice at once, and every action
// is a transition that the table of machines knows.
func TestDecideIsBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyPool(t)
		byID := map[string]Machine{}
		for _, m := range s.Machines {
			byID[m.ID] = m
		}
		total, acted := len(s.Machines)+len(s.Strangers), map[string]bool{}
		added := 0
		for _, a := range Decide(s) {
			name := a.MachineID + a.ProviderID
			switch {
			case a.MachineID == "" && a.Kind == Create:
				added++
				continue
			case a.MachineID == "" || a.Kind == Adopt: // a stranger
			default:
				checkTransition(t, byID[a.MachineID], a.Kind)
			}
			require.False(t, acted[name], "two actions for %s", name)
			acted[name] = true
		}
		require.LessOrEqual(t, total+added, max(s.Settings.Limit, total))
		if s.Hold {
			require.Zero(t, added)
		}
	})
}

// TestDecideSettles: growth meets the need or the limit, and deciding again
// once it has shown asks for no more and takes none of it back.
func TestDecideSettles(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyPool(t)
		actions := Decide(s)
		if s.Hold {
			return
		}
		after := grown(s, actions)
		f := fleetOf(after)
		short, _ := missing(after, &f)
		full := len(after.Machines)+len(after.Strangers) >= s.Settings.Limit
		require.True(t, short == 0 || full, "%d machines are missing below the limit", short)
		started := map[string]bool{}
		for _, a := range actions {
			if a.Kind == Start {
				started[a.MachineID] = true
			}
		}
		for _, a := range Decide(after) {
			require.NotEqual(t, Start, a.Kind)
			require.False(t, a.Kind == Create && a.MachineID == "", "growth after growth")
			require.False(t, started[a.MachineID] || len(a.MachineID) > 2 && a.MachineID[:3] == "new", "%s of what was just asked for", a.Kind)
		}
	})
}

// TestDecideIsMonotone: more work never asks for fewer machines.
func TestDecideIsMonotone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyPool(t)
		more := s
		tasks := rapid.IntRange(0, 20).Draw(t, "more tasks")
		more.Work.Ready += tasks
		more.Work.Waiting += time.Duration(tasks) * time.Duration(rapid.IntRange(0, 60_000).Draw(t, "ms each")) * time.Millisecond
		require.GreaterOrEqual(t, growth(Decide(more)), growth(Decide(s)))
	})
}

func states() []pipeline.MachineState {
	return []pipeline.MachineState{
		pipeline.MachineCreating, pipeline.MachineStarting, pipeline.MachineRunning, pipeline.MachineDraining,
		pipeline.MachineStopping, pipeline.MachineStopped, pipeline.MachineFailed,
	}
}

func instances() []machine.State {
	return []machine.State{"", machine.Starting, machine.Running, machine.Stopping, machine.Stopped, machine.Failed}
}

func checkTransition(t *rapid.T, m Machine, kind Kind) {
	by := map[Kind]pipeline.MachineTransition{
		Start: pipeline.MachineStart, Stop: pipeline.MachineStop, Destroy: pipeline.MachineDestroy, Drain: pipeline.MachineDrain,
		NoteCreated: pipeline.MachineCreated, NoteAttached: pipeline.MachineAttach, NoteDrain: pipeline.MachineDrain,
		NoteExit: pipeline.MachineExit, NoteBreak: pipeline.MachineBreak,
	}
	transition, moves := by[kind]
	named := kind == NoteCreated && m.State != pipeline.MachineCreating
	if !moves || named || kind == Stop && m.State == pipeline.MachineStopped {
		return // a creation or a start that is taken up again, what it is called, or a stop that is repeated
	}
	_, ok := m.State.Next(transition)
	require.True(t, ok, "%s of a machine that is %s", kind, m.State)
}

// grown is a snapshot in which the growth of a decision shows.
func grown(s Snapshot, actions []Action) Snapshot {
	after := s
	after.Machines = append([]Machine(nil), s.Machines...)
	for i, a := range actions {
		switch {
		case a.Kind == Create && a.MachineID == "":
			after.Machines = append(after.Machines, Machine{
				ID: fmt.Sprintf("new%d", i), State: pipeline.MachineStarting, Instance: machine.Running, Silent: 1,
			})
		case a.Kind == Start:
			for j := range after.Machines {
				if after.Machines[j].ID == a.MachineID {
					after.Machines[j] = Machine{ID: a.MachineID, State: pipeline.MachineStarting, Instance: machine.Running, Silent: 1}
				}
			}
		}
	}
	return after
}
