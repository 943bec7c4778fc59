package fly_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/fly"
)

// TestSharedPace: two control planes together keep within Fly's limits; while
// they can't ask for turns, each does alone.
func TestSharedPace(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	busy := map[string]time.Time{} // until when turns are taken
	broken := false
	turns := func(_ context.Context, name string, every time.Duration, burst int, most time.Duration) (time.Duration, bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return 0, false, errors.New("no Redis")
		}
		from := time.Now()
		if busy[name].After(from) {
			from = busy[name]
		}
		wait := max(0, time.Until(from)-time.Duration(burst-1)*every)
		if wait > most {
			return 0, false, nil
		}
		busy[name] = from.Add(every)
		return wait, true, nil
	}
	share := func(c *fly.Config) { c.Pace = fly.SharedPace(turns) }
	one, s := open(t, func(c *flytest.Config) { c.Limits = flytest.Limits{} }, share)
	h := httptest.NewServer(s)
	defer h.Close()
	two := connect(t, h.URL, share)
	var calls errgroup.Group
	for i := range 6 {
		calls.Go(func() error {
			_, err := []*fly.Provider{one, two}[i%2].Create(t.Context(), machine.CreateRequest{ID: "M" + strconv.Itoa(i)})
			return err
		})
	}
	require.NoError(t, calls.Wait())
	require.Len(t, s.Calls(flytest.Create), 6)
	for _, call := range s.Calls() {
		require.NotEqual(t, http.StatusTooManyRequests, call.Status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := two.Create(ctx, machine.CreateRequest{ID: "late"})
	require.Equal(t, machine.RateLimited, machine.ClassOf(err))

	mu.Lock()
	broken = true
	mu.Unlock()
	_, err = one.List(t.Context())
	require.NoError(t, err)
}

// TestPace: our own limiter keeps within the limits of Fly, for each machine by
// itself, and a call that can't wait so long is never sent.
func TestPace(t *testing.T) {
	t.Parallel()
	p, s := open(t, func(c *flytest.Config) { c.Limits = flytest.Limits{} }, func(c *fly.Config) { c.Pace = fly.LocalPace() })
	for _, id := range []string{"M1", "M2", "M3"} {
		_, err := p.Create(t.Context(), machine.CreateRequest{ID: id})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := p.Create(ctx, machine.CreateRequest{ID: "M4"})
	require.Equal(t, machine.RateLimited, machine.ClassOf(err))
	_, err = p.Create(t.Context(), machine.CreateRequest{ID: "M4"})
	require.NoError(t, err)
	require.Len(t, s.Calls(flytest.Create), 4)
	for _, call := range s.Calls() {
		require.NotEqual(t, http.StatusTooManyRequests, call.Status)
	}

	hasty := fly.Pace(noPace)
	p, s = open(t, nil, func(c *fly.Config) { c.Pace = hasty })
	s.Inject(flytest.Fault{Op: flytest.List, Answer: flytest.Answer{Status: 429, RetryAfter: "7", Body: map[string]any{"error": "slow down"}}})
	_, err = p.List(t.Context())
	var limited *machine.Error
	require.ErrorAs(t, err, &limited)
	require.Equal(t, 7*time.Second, limited.RetryAfter)
}
