package scripted_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/machinetest"
	"github.com/tcoder-dev/tcoder/internal/machine/scripted"
)

// TestConformance: a script is a provider like any other.
func TestConformance(t *testing.T) {
	t.Parallel()
	machinetest.Run(t, func(t *testing.T) machinetest.Fixture {
		t.Helper()
		p := scripted.New(scripted.Config{
			Boot:        func(int, bool) scripted.Boot { return scripted.Boot{Latency: 5 * time.Millisecond} },
			StopLatency: 5 * time.Millisecond,
		})
		return machinetest.Fixture{
			Provider: p,
			End: func(t *testing.T, id string, fail bool) {
				t.Helper()
				require.True(t, p.End(id, fail))
			},
			Provoke: func(t *testing.T, action machinetest.Action, class machine.Class, effect bool) bool {
				t.Helper()
				p.Inject(scripted.Fault{Op: scripted.Op(action), Effect: effect, Err: &machine.Error{Class: class, Err: errors.New("on cue")}})
				return true
			},
		}
	})
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestClock: machines live by the caller's clock, and what they cost is
// counted to the instant, whenever somebody looks.
func TestClock(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_700_000_000, 0)}
	p := scripted.New(scripted.Config{
		Now: c.Now,
		Boot: func(n int, first bool) scripted.Boot {
			switch {
			case n == 0:
				return scripted.Boot{Latency: 6 * time.Second, LivesFor: time.Minute, Fails: true}
			case first:
				return scripted.Boot{Never: true}
			default:
				return scripted.Boot{Latency: time.Second}
			}
		},
		StopLatency: 2 * time.Second, DestroyLatency: 3 * time.Second,
	})
	is := func(id string, want machine.State) {
		got, err := p.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, got.State)
	}
	for _, id := range []string{"dies", "hangs"} {
		_, err := p.Create(t.Context(), machine.CreateRequest{ID: id})
		require.NoError(t, err)
	}
	next, ok := p.Next()
	require.True(t, ok)
	require.Equal(t, 6*time.Second, next.Sub(c.Now()))
	c.pass(6 * time.Second)
	is("dies", machine.Running)
	c.pass(time.Hour)
	is("dies", machine.Failed)
	is("hangs", machine.Starting)
	_, ok = p.Next()
	require.False(t, ok)
	require.Equal(t, scripted.Totals{Made: 2, Most: 2, Ran: 66*time.Second + time.Hour + 6*time.Second}, p.Totals())

	require.NoError(t, p.Start(t.Context(), "dies"))
	c.pass(time.Second)
	is("dies", machine.Running)
	require.NoError(t, p.Stop(t.Context(), "dies"))
	is("dies", machine.Stopping)
	require.Equal(t, machine.NotReady, machine.ClassOf(p.Start(t.Context(), "dies")))
	c.pass(2 * time.Second)
	is("dies", machine.Stopped)
	require.Equal(t, machine.Unclear, machine.ClassOf(p.Destroy(t.Context(), "hangs")))
	c.pass(3 * time.Second)
	require.NoError(t, p.Destroy(t.Context(), "hangs"))
	list, err := p.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}

// TestLimits: calls too many are refused, for each machine by itself; a full
// region leads to the next.
func TestLimits(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_700_000_000, 0)}
	p := scripted.New(scripted.Config{Now: c.Now, PerSecond: 1, Burst: 3, Room: map[string]int{"iad": 1, "fra": 1}})
	regions := []string{"iad", "fra"}
	for _, want := range []machine.Class{"", "", machine.RegionFull, machine.RateLimited} {
		_, err := p.Create(t.Context(), machine.CreateRequest{ID: string(rune('a' + p.Totals().Made)), Regions: regions})
		require.Equal(t, want, machine.ClassOf(err))
	}
	list, err := p.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"iad", "fra"}, []string{list[0].Region, list[1].Region})
	c.pass(time.Second)
	_, err = p.Create(t.Context(), machine.CreateRequest{ID: "z", Regions: regions})
	require.Equal(t, machine.RegionFull, machine.ClassOf(err))
	for _, id := range []string{"a", "b"} {
		for range 3 {
			require.NoError(t, p.Start(t.Context(), id))
		}
		require.Equal(t, machine.RateLimited, machine.ClassOf(p.Start(t.Context(), id)))
	}
}
