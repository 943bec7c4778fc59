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

func snapshot(ready, free int, machines ...Machine) Snapshot {
	for i := range machines {
		machines[i].ID = fmt.Sprintf("m%d", i)
		machines[i].ProviderID = "p" + machines[i].ID
	}
	return Snapshot{
		Limit: 3, SlotsPerMachine: 2, StartTimeout: time.Minute, StopTimeout: time.Minute,
		Machines: machines, FreeSlots: free, ReadyTasks: ready,
	}
}

// TestDecide: what is done about each situation.
func TestDecide(t *testing.T) {
	t.Parallel()
	running := Machine{State: pipeline.MachineRunning, Instance: machine.Running}
	starting := Machine{State: pipeline.MachineStarting, Instance: machine.Running}
	stopped := Machine{State: pipeline.MachineStopped, Instance: machine.Stopped}
	with := func(m Machine, edit func(*Machine)) Machine {
		edit(&m)
		return m
	}
	held := snapshot(9, 0)
	held.Hold = true
	keeping := snapshot(0, 0, stopped, stopped)
	keeping.KeepStopped = 1
	orphaned := snapshot(0, 0)
	orphaned.Orphans = []string{"x"}
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
		"growth rests after a failure":       {held, nil},
		"a stopped machine is started first": {snapshot(1, 0, stopped), []string{"START m0"}},
		"then one is created":                {snapshot(3, 0, stopped), []string{"START m0", "CREATE "}},
		"a surplus one is destroyed":         {snapshot(0, 0, stopped), []string{"DESTROY m0"}},
		"some are kept":                      {keeping, []string{"DESTROY m1"}},
		"an orphan is destroyed":             {orphaned, []string{"DESTROY "}},
		"a creation that was cut off":        {snapshot(0, 0, Machine{State: pipeline.MachineCreating}), []string{"CREATE m0"}},
		"it is no second machine":            {snapshot(2, 0, Machine{State: pipeline.MachineCreating}), []string{"CREATE m0"}},
		"a creation that wasn't recorded": {
			snapshot(0, 0, Machine{State: pipeline.MachineCreating, Instance: machine.Running}), []string{"NOTE_CREATED m0"},
		},
		"a boot in time":           {snapshot(0, 0, with(starting, func(m *Machine) { m.Silent = long })), nil},
		"a boot that hangs":        {snapshot(0, 0, with(starting, func(m *Machine) { m.InState = long })), []string{"NOTE_BREAK m0"}},
		"a boot that failed":       {snapshot(0, 0, with(starting, func(m *Machine) { m.Instance = machine.Failed })), []string{"NOTE_BREAK m0"}},
		"a boot without a machine": {snapshot(0, 0, with(starting, func(m *Machine) { m.Instance = "" })), []string{"NOTE_BREAK m0"}},
		"a machine that is gone":   {snapshot(0, 0, with(running, func(m *Machine) { m.Instance = "" })), []string{"NOTE_BREAK m0"}},
		"a machine that crashed":   {snapshot(0, 0, with(running, func(m *Machine) { m.Instance = machine.Failed })), []string{"NOTE_BREAK m0"}},
		"its place is taken at the next look": {
			snapshot(1, 0, with(running, func(m *Machine) { m.Instance = "" }), running, running), []string{"NOTE_BREAK m0"},
		},
		"a worker that left":        {snapshot(0, 0, with(running, func(m *Machine) { m.Instance = machine.Stopped })), []string{"NOTE_EXIT m0"}},
		"a worker that is silent":   {snapshot(0, 0, with(running, func(m *Machine) { m.Silent = long })), []string{"STOP m0"}},
		"a worker that drains":      {snapshot(0, 0, with(running, func(m *Machine) { m.Draining = true })), []string{"NOTE_DRAIN m0"}},
		"it is noted once":          {snapshot(0, 0, Machine{State: pipeline.MachineDraining, Instance: machine.Running, Draining: true}), nil},
		"a stop takes its time":     {snapshot(0, 0, Machine{State: pipeline.MachineStopping, Instance: machine.Stopping}), nil},
		"a stop that hangs":         {snapshot(0, 0, Machine{State: pipeline.MachineStopping, Instance: machine.Stopping, InState: long}), []string{"NOTE_BREAK m0"}},
		"a stop that came to pass":  {snapshot(0, 0, Machine{State: pipeline.MachineStopping, Instance: machine.Stopped}), []string{"NOTE_EXIT m0"}},
		"a stop that broke":         {snapshot(0, 0, Machine{State: pipeline.MachineStopping}), []string{"NOTE_BREAK m0"}},
		"stopped, and gone":         {snapshot(0, 0, Machine{State: pipeline.MachineStopped}), []string{"DESTROY m0"}},
		"stopped, but running":      {snapshot(0, 0, Machine{State: pipeline.MachineStopped, Instance: machine.Running}), []string{"STOP m0"}},
		"a failed one is destroyed": {snapshot(0, 0, Machine{State: pipeline.MachineFailed, Instance: machine.Running}), []string{"DESTROY m0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, a := range Decide(test.snapshot) {
				got = append(got, string(a.Kind)+" "+a.MachineID)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// TestDecideProperties: whatever a pool looks like, the machines never become
// more than the limit, no machine is acted on twice at once, every action is a
// transition that the table of machines knows, growth covers the demand or
// meets the limit, and deciding again after the growth showed asks for none.
func TestDecideProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Snapshot{
			Limit:           rapid.IntRange(0, 6).Draw(t, "limit"),
			SlotsPerMachine: rapid.IntRange(1, 4).Draw(t, "slots"),
			KeepStopped:     rapid.IntRange(0, 2).Draw(t, "keep"),
			StartTimeout:    time.Minute, StopTimeout: time.Minute,
			Hold:       rapid.Bool().Draw(t, "hold"),
			FreeSlots:  rapid.IntRange(0, 9).Draw(t, "free"),
			ReadyTasks: rapid.IntRange(0, 40).Draw(t, "ready"),
		}
		for i := range rapid.IntRange(0, s.Limit).Draw(t, "machines") {
			s.Machines = append(s.Machines, Machine{
				ID:       fmt.Sprintf("m%d", i),
				State:    rapid.SampledFrom(states()).Draw(t, "state"),
				Instance: rapid.SampledFrom(instances()).Draw(t, "instance"),
				InState:  time.Duration(rapid.IntRange(0, 120).Draw(t, "in state")) * time.Second,
				Silent:   time.Duration(rapid.IntRange(0, 120).Draw(t, "silent")) * time.Second,
				Draining: rapid.Bool().Draw(t, "draining"),
			})
		}
		actions := Decide(s)
		byID := map[string]Machine{}
		for _, m := range s.Machines {
			byID[m.ID] = m
		}
		created, acted := 0, map[string]bool{}
		for _, a := range actions {
			if a.MachineID == "" {
				require.Equal(t, Create, a.Kind)
				created++
				continue
			}
			require.False(t, acted[a.MachineID], "two actions for %s", a.MachineID)
			acted[a.MachineID] = true
			checkTransition(t, byID[a.MachineID], a.Kind)
		}
		require.LessOrEqual(t, len(s.Machines)+created, max(s.Limit, len(s.Machines)))
		if s.Hold {
			require.Zero(t, created)
			return
		}
		after := grown(s, actions)
		missing := demand(after, comingOf(after))
		require.True(t, missing == 0 || len(after.Machines) >= s.Limit, "%d machines are missing below the limit", missing)
		for _, a := range Decide(after) {
			require.NotEqual(t, Start, a.Kind)
			require.False(t, a.Kind == Create && !interrupted(after, a.MachineID), "growth after growth")
		}
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
		Start: pipeline.MachineStart, Stop: pipeline.MachineStop, Destroy: pipeline.MachineDestroy,
		NoteCreated: pipeline.MachineCreated, NoteDrain: pipeline.MachineDrain, NoteExit: pipeline.MachineExit,
		NoteBreak: pipeline.MachineBreak,
	}
	transition, moves := by[kind]
	if !moves || kind == Stop && m.State == pipeline.MachineStopped {
		return // a creation that is taken up again, or a stop that is repeated
	}
	_, ok := m.State.Next(transition)
	require.True(t, ok, "%s of a machine that is %s", kind, m.State)
}

// grown is a snapshot in which the growth of a decision shows.
func grown(s Snapshot, actions []Action) Snapshot {
	after := s
	after.Machines = append([]Machine(nil), s.Machines...)
	for i, a := range actions {
		switch a.Kind {
		case Create:
			if a.MachineID == "" {
				after.Machines = append(after.Machines, Machine{
					ID: fmt.Sprintf("new%d", i), State: pipeline.MachineStarting, Instance: machine.Running,
				})
			}
		case Start:
			for j := range after.Machines {
				if after.Machines[j].ID == a.MachineID {
					after.Machines[j] = Machine{ID: a.MachineID, State: pipeline.MachineStarting, Instance: machine.Running}
				}
			}
		case Stop, Destroy, NoteCreated, NoteDrain, NoteExit, NoteBreak:
		}
	}
	return after
}

func interrupted(s Snapshot, id string) bool {
	for _, m := range s.Machines {
		if m.ID == id {
			return m.State == pipeline.MachineCreating
		}
	}
	return false
}
