package autoscale_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/machine/fly"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/services/autoscale"
)

// TestFlyFromZeroToTheLimitAndBack: on Fly, with its limits of calls and lost
// and refused answers on the way, many tasks make machines up to the limit and
// never one more; when the work is done none is left there, nor in the store.
func TestFlyFromZeroToTheLimitAndBack(t *testing.T) {
	t.Parallel()
	const limit = 3
	c := &cell{dir: t.TempDir()}
	url, tag := redistest.New(t)
	var err error
	c.store, err = redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.store.Close()) })
	cloud := flytest.New(flytest.Config{
		App: "acme", Token: "fm2_x",
		Delays: flytest.Delays{
			Create: 50 * time.Millisecond, Start: 20 * time.Millisecond, Stop: 50 * time.Millisecond, Destroy: 50 * time.Millisecond,
		},
		Command: func(b flytest.Boot) ([]string, []string) {
			return []string{"sh", "-c", program}, []string{"PATH=" + os.Getenv("PATH"), "DIR=" + c.dir, "ID=" + b.Env["ID"]}
		},
	})
	t.Cleanup(cloud.Close)
	server := httptest.NewServer(cloud)
	t.Cleanup(server.Close)
	for _, fault := range []flytest.Fault{
		{Op: flytest.Create, Answer: flytest.Refusal(502, "bad gateway"), Effect: true},
		{Op: flytest.Create, Answer: flytest.RegionFull()},
		{Op: flytest.Create, Cut: true, Effect: true},
		{Op: flytest.List, Answer: flytest.RateLimited()},
		{Op: flytest.Destroy, Answer: flytest.Refusal(503, "unavailable"), Effect: true},
	} {
		cloud.Inject(fault)
	}
	term := c.lead(t)
	look := make(chan struct{}, 2) // nobody tells them of an exit on Fly
	for range 2 {                  // both believe to lead
		provider, err := fly.New(fly.Config{
			App: "acme", Token: "fm2_x", APIURL: server.URL, Image: "worker:1", Pace: fly.SharedPace(c.turns),
			Size: fly.Size{CPUKind: "performance", CPUs: 1, MemoryMB: 2048}, Transport: &http.Transport{DisableKeepAlives: true},
		})
		require.NoError(t, err)
		r := autoscale.New(autoscale.Config{
			Settings: pipeline.PoolSettings{Limit: limit}, Env: func(id string) map[string]string { return map[string]string{"ID": id} },
		}, autoscale.Deps{
			Store: c.store, Provider: provider, Term: func() int64 { return term }, Elected: look,
			Log: slog.New(slog.DiscardHandler),
		})
		c.background(t, r.Run)
	}
	for range limit {
		c.submit(t)
	}

	// Each machine's worker takes a task; when all are busy they end, and leave.
	leases := map[string]pipeline.Lease{}
	for len(leases) < limit {
		id := nextMachine(t, c, leases)
		leases[id] = c.attach(t, id)
	}
	require.Eventually(t, func() bool { return cloud.Counts().Processes == limit }, patience, 5*time.Millisecond)
	for id, lease := range leases {
		verdict, err := c.store.FailTask(t.Context(), pipeline.TaskFault{
			Ref: lease.Ref, WorkerID: "w-" + id, Class: pipeline.FaultInput,
			Failure: pipeline.Failure{Reason: pipeline.ReasonInputCorrupt, Message: "x"},
		})
		require.NoError(t, err)
		require.Equal(t, pipeline.VerdictAccepted, verdict)
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, id+".exit"), nil, 0o600))
	}
	require.Eventually(t, func() bool {
		select {
		case look <- struct{}{}:
		default:
		}
		return cloud.Counts().Existing == 0 && len(c.machines(t)) == 0
	}, 4*patience, 100*time.Millisecond)
	counts := cloud.Counts()
	require.LessOrEqual(t, counts.MostExisting, limit)
	require.Zero(t, counts.Processes)
	require.Zero(t, cloud.Pending())
	limited := 0
	for _, call := range cloud.Calls() {
		if call.Status == http.StatusTooManyRequests {
			limited++
		}
	}
	require.Equal(t, 1, limited, "more than was injected: they don't share Fly's limits")
}

// turns are taken by all who use the cell's store.
func (c *cell) turns(ctx context.Context, name string, every time.Duration, burst int, most time.Duration) (time.Duration, bool, error) {
	return c.store.TakeTurn(ctx, name, pipeline.Pace{Every: every, Burst: burst}, most)
}

// nextMachine waits for a machine that starts and wasn't served yet.
func nextMachine(t *testing.T, c *cell, served map[string]pipeline.Lease) string {
	t.Helper()
	var id string
	require.Eventually(t, func() bool {
		for _, m := range c.machines(t) {
			if m.State == pipeline.MachineStarting && served[m.ID].Ref.Attempt == 0 {
				id = m.ID
			}
		}
		return id != ""
	}, 4*patience, 20*time.Millisecond, "no machine came")
	return id
}
