package machinetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

func got(t *testing.T, f Fixture) {
	t.Helper()
	id := create(t, f, "m1")
	waitFor(t, f, id, machine.Running)
	one, err := f.Provider.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, list(t, f)[0], one)
	require.False(t, one.Outdated)
	require.False(t, one.HostLost)
	require.NoError(t, f.Provider.Destroy(t.Context(), id))
	_, err = f.Provider.Get(t.Context(), id)
	require.ErrorIs(t, err, machine.ErrNotFound)
}

// startedTooSoon: either the start is refused as NotReady, or the machine runs.
func startedTooSoon(t *testing.T, f Fixture) {
	t.Helper()
	id := create(t, f, "m1")
	waitFor(t, f, id, machine.Running)
	require.NoError(t, f.Provider.Stop(t.Context(), id))
	require.Eventually(t, func() bool {
		err := f.Provider.Start(t.Context(), id)
		if err != nil {
			require.Equal(t, machine.NotReady, machine.ClassOf(err))
			require.ErrorIs(t, err, machine.ErrUnavailable)
		}
		return err == nil
	}, patience, 5*time.Millisecond)
	waitFor(t, f, id, machine.Running)
}

// classes are the failures of each action.
func classes() map[Action][]machine.Class {
	always := []machine.Class{machine.Unclear, machine.RateLimited, machine.Unauthorized}
	with := func(more ...machine.Class) []machine.Class { return append(more, always...) }
	return map[Action][]machine.Class{
		Create: with(machine.RegionFull, machine.Quota, machine.NameTaken, machine.Refused), Start: with(machine.HostFull, machine.NotReady),
		Stop: with(machine.NotReady), Destroy: always, Get: always, List: always,
	}
}

func failed(t *testing.T, f Fixture) {
	t.Helper()
	if f.Provoke == nil {
		t.Skip("it doesn't fail")
	}
	id := create(t, f, "there")
	waitFor(t, f, id, machine.Running)
	for action, classes := range classes() {
		for _, class := range classes {
			if action == Start {
				require.NoError(t, f.Provider.Stop(t.Context(), id))
				waitFor(t, f, id, machine.Stopped)
			}
			before := list(t, f)
			if !f.Provoke(t, action, class, false) {
				continue
			}
			err := f.do(t.Context(), action, id)
			require.Equal(t, class, machine.ClassOf(err), "%s: %v", action, err)
			require.Regexp(t, `^[A-Z].*\.$`, machine.MessageOf(err))
			after := list(t, f)
			require.Len(t, after, len(before))
			require.Equal(t, before[0].State, after[0].State)
			if class != machine.NameTaken {
				require.NoError(t, f.do(t.Context(), action, id), "%s after %s", action, class)
			}
			if action == Create || action == Destroy {
				removeAll(t, f)
				id = create(t, f, "there")
			}
			f.revive(t, id)
		}
	}
}

func lost(t *testing.T, f Fixture) {
	t.Helper()
	if f.Provoke == nil {
		t.Skip("it doesn't lose answers")
	}
	for _, effect := range []bool{true, false} {
		removeAll(t, f)
		require.True(t, f.Provoke(t, Create, machine.Unclear, effect))
		id := insist(t, func() (string, error) {
			return f.Provider.Create(t.Context(), machine.CreateRequest{ID: "m1", Env: map[string]string{"TCODER_TEST": "m1"}})
		})
		require.Len(t, list(t, f), 1)
		require.Equal(t, list(t, f)[0].ProviderID, id)
		waitFor(t, f, id, machine.Running)
		for _, step := range []struct {
			action Action
			after  machine.State
		}{{Stop, machine.Stopped}, {Start, machine.Running}} {
			require.True(t, f.Provoke(t, step.action, machine.Unclear, effect))
			insist(t, func() (string, error) { return "", f.do(t.Context(), step.action, id) })
			waitFor(t, f, id, step.after)
		}
		require.True(t, f.Provoke(t, Destroy, machine.Unclear, effect))
		insist(t, func() (string, error) { return "", f.do(t.Context(), Destroy, id) })
		require.Empty(t, list(t, f))
	}
}

// insist repeats a call while that may help.
func insist(t *testing.T, call func() (string, error)) string {
	t.Helper()
	var id string
	require.Eventually(t, func() bool {
		var err error
		id, err = call()
		if err != nil {
			require.ErrorIs(t, err, machine.ErrUnavailable)
		}
		return err == nil
	}, patience, 5*time.Millisecond)
	return id
}

// do calls the method of an action: on one machine, or to create another.
func (f Fixture) do(ctx context.Context, action Action, id string) error {
	var err error
	switch action {
	case Create:
		_, err = f.Provider.Create(ctx, machine.CreateRequest{ID: "another", Env: map[string]string{"TCODER_TEST": "another"}})
	case Start:
		err = f.Provider.Start(ctx, id)
	case Stop:
		err = f.Provider.Stop(ctx, id)
	case Destroy:
		err = f.Provider.Destroy(ctx, id)
	case Get:
		_, err = f.Provider.Get(ctx, id)
	case List:
		_, err = f.Provider.List(ctx)
	}
	return err
}

// revive makes a machine run, whatever it does.
func (f Fixture) revive(t *testing.T, id string) {
	t.Helper()
	insist(t, func() (string, error) { return "", f.Provider.Start(t.Context(), id) })
	waitFor(t, f, id, machine.Running)
}

// removeAll removes all machines.
func removeAll(t *testing.T, f Fixture) {
	t.Helper()
	for _, i := range list(t, f) {
		require.NoError(t, f.Provider.Destroy(t.Context(), i.ProviderID))
	}
	require.Eventually(t, func() bool { return len(list(t, f)) == 0 }, patience, 5*time.Millisecond)
}
