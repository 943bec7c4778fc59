// Package machinetest is the conformance suite of [machine.Provider]: what
// every provider does, whatever its machines are made of.
package machinetest

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

const patience = 20 * time.Second

// Fixture is a provider without machines, for one test.
type Fixture struct {
	Provider machine.Provider
	// End makes the program of a running machine end by itself, with an error
	// or without.
	End func(t *testing.T, providerID string, fail bool)
	// Provoke makes the next call of an action fail by a class; with effect the
	// call takes effect and its answer is lost. It reports whether the provider
	// can fail so at all. Nil if it never does.
	Provoke func(t *testing.T, action Action, class machine.Class, effect bool) bool
}

// Action is a method that can be made to fail.
type Action string

// The actions.
const (
	Create  Action = "create"
	Start   Action = "start"
	Stop    Action = "stop"
	Destroy Action = "destroy"
	Get     Action = "get"
	List    Action = "list"
)

// Run runs the suite; setup makes the fixture of each of its tests.
func Run(t *testing.T, setup func(t *testing.T) Fixture) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, Fixture)
	}{
		{"a created machine is listed under its id and runs", created},
		{"creating an id again makes no second machine", createdTwice},
		{"a creation that isn't confirmed makes nothing", withdrawn},
		{"machines created at once are all there", createdAtOnce},
		{"a stopped machine can be started again", stoppedAndStarted},
		{"stopping and starting again changes nothing", repeated},
		{"a destroyed machine is gone, and destroying it again is no error", destroyed},
		{"a machine the provider doesn't have is ErrNotFound", unknown},
		{"a machine that ends by itself is noticed", ended},
		{"a machine by its id is as in the list", got},
		{"a machine that is still stopping isn't started by accident", startedTooSoon},
		{"each failure has its class and a sentence, and leaves nothing behind", failed},
		{"a call whose answer was lost can be repeated", lost},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, setup(t))
		})
	}
}

func created(t *testing.T, f Fixture) {
	t.Helper()
	require.NotEmpty(t, f.Provider.Name())
	id := create(t, f, "m1")
	list := list(t, f)
	require.Len(t, list, 1)
	require.Equal(t, "m1", list[0].ID)
	require.Equal(t, id, list[0].ProviderID)
	waitFor(t, f, id, machine.Running)
}

func createdTwice(t *testing.T, f Fixture) {
	t.Helper()
	first := create(t, f, "m1")
	require.Equal(t, first, create(t, f, "m1"))
	require.Len(t, list(t, f), 1)
	waitFor(t, f, first, machine.Running)
	require.NoError(t, f.Provider.Stop(t.Context(), first))
	waitFor(t, f, first, machine.Stopped)
	require.Equal(t, first, create(t, f, "m1"))
	require.Equal(t, machine.Stopped, list(t, f)[0].State)
}

func withdrawn(t *testing.T, f Fixture) {
	t.Helper()
	why := errors.New("not any more")
	_, err := f.Provider.Create(t.Context(), machine.CreateRequest{ID: "m1", Confirm: func() error { return why }})
	require.ErrorIs(t, err, why)
	require.Empty(t, list(t, f))
	_, err = f.Provider.Create(t.Context(), machine.CreateRequest{ID: "m1", Confirm: func() error { return nil }})
	require.NoError(t, err)
	require.Len(t, list(t, f), 1)
}

func createdAtOnce(t *testing.T, f Fixture) {
	t.Helper()
	const machines = 5
	var created sync.WaitGroup
	errs := make([]error, machines*2)
	for i := range errs {
		created.Go(func() {
			_, errs[i] = f.Provider.Create(t.Context(), machine.CreateRequest{ID: "m" + strconv.Itoa(i%machines)})
		})
	}
	created.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, list(t, f), machines)
}

func stoppedAndStarted(t *testing.T, f Fixture) {
	t.Helper()
	id := create(t, f, "m1")
	for range 2 {
		waitFor(t, f, id, machine.Running)
		require.NoError(t, f.Provider.Stop(t.Context(), id))
		waitFor(t, f, id, machine.Stopped)
		require.NoError(t, f.Provider.Start(t.Context(), id))
	}
	waitFor(t, f, id, machine.Running)
	require.Len(t, list(t, f), 1)
}

func repeated(t *testing.T, f Fixture) {
	t.Helper()
	id := create(t, f, "m1")
	waitFor(t, f, id, machine.Running)
	require.NoError(t, f.Provider.Start(t.Context(), id))
	waitFor(t, f, id, machine.Running)
	require.NoError(t, f.Provider.Stop(t.Context(), id))
	require.NoError(t, f.Provider.Stop(t.Context(), id))
	waitFor(t, f, id, machine.Stopped)
	require.NoError(t, f.Provider.Stop(t.Context(), id))
	require.Equal(t, machine.Stopped, list(t, f)[0].State)
}

func destroyed(t *testing.T, f Fixture) {
	t.Helper()
	running, stopped := create(t, f, "m1"), create(t, f, "m2")
	waitFor(t, f, running, machine.Running)
	waitFor(t, f, stopped, machine.Running)
	require.NoError(t, f.Provider.Stop(t.Context(), stopped))
	waitFor(t, f, stopped, machine.Stopped)
	for _, id := range []string{running, stopped, running} {
		require.NoError(t, f.Provider.Destroy(t.Context(), id))
	}
	require.Eventually(t, func() bool { return len(list(t, f)) == 0 }, patience, 10*time.Millisecond)
	require.ErrorIs(t, f.Provider.Start(t.Context(), running), machine.ErrNotFound)
}

func unknown(t *testing.T, f Fixture) {
	t.Helper()
	require.ErrorIs(t, f.Provider.Start(t.Context(), "nobody"), machine.ErrNotFound)
	require.ErrorIs(t, f.Provider.Stop(t.Context(), "nobody"), machine.ErrNotFound)
	require.NoError(t, f.Provider.Destroy(t.Context(), "nobody"))
	_, err := f.Provider.Get(t.Context(), "nobody")
	require.ErrorIs(t, err, machine.ErrNotFound)
	require.Equal(t, machine.NotFound, machine.ClassOf(err))
	require.Empty(t, list(t, f))
}

func ended(t *testing.T, f Fixture) {
	t.Helper()
	for name, want := range map[string]machine.State{"good": machine.Stopped, "bad": machine.Failed} {
		id := create(t, f, name)
		waitFor(t, f, id, machine.Running)
		f.End(t, id, want == machine.Failed)
		if changes := f.Provider.Changes(); changes != nil {
			select {
			case <-changes:
			case <-time.After(patience):
				require.Fail(t, "no change was told")
			}
		}
		waitFor(t, f, id, want)
	}
}

func create(t *testing.T, f Fixture, id string) string {
	t.Helper()
	providerID, err := f.Provider.Create(t.Context(), machine.CreateRequest{ID: id, Env: map[string]string{"TCODER_TEST": id}})
	require.NoError(t, err)
	require.NotEmpty(t, providerID)
	return providerID
}

func list(t *testing.T, f Fixture) []machine.Instance {
	t.Helper()
	instances, err := f.Provider.List(t.Context())
	require.NoError(t, err)
	return instances
}

func waitFor(t *testing.T, f Fixture, providerID string, want machine.State) {
	t.Helper()
	require.Eventually(t, func() bool {
		instances, err := f.Provider.List(t.Context())
		return err == nil && slices.ContainsFunc(instances, func(i machine.Instance) bool {
			return i.ProviderID == providerID && i.State == want
		})
	}, patience, 5*time.Millisecond, "%s never became %s", providerID, want)
}
