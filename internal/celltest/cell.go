// Package celltest is a whole cell in one process, for tests of what its parts
// do together: control planes as they are deployed (services.Server with the
// pool, the sweeper and the publisher), workers as they are deployed but for
// FFmpeg, a store of the test's choice between them, and a network in memory
// that breaks on request.
//
// With a memstore all of it runs inside a testing/synctest bubble, in fake
// time: hours of heartbeats and leases take no time, and every pause is exact.
package celltest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/memhttp"
	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Cell is what control planes and workers share.
type Cell struct {
	Network *memhttp.Network
	Store   pipeline.Store
	In, Out *Objects
	Log     *slog.Logger
}

// New returns a cell without control planes and workers, on a store in memory.
func New() *Cell { return On(memstore.New(memstore.Config{})) }

// On returns a cell without control planes and workers on a store.
func On(store pipeline.Store) *Cell {
	return &Cell{
		Network: memhttp.New(), Store: store, In: NewObjects(), Out: NewObjects(), Log: slog.New(slog.DiscardHandler),
	}
}

// Submit puts a job into the queue whose source is there.
func (c *Cell) Submit(t testing.TB) pipeline.Job {
	t.Helper()

	id := ulid.Make().String()
	key := "in/" + pipeline.DefaultProject + "/" + id + "/source"
	require.NoError(t, c.In.Put(t.Context(), key, strings.NewReader(id), objectstore.PutOptions{}))

	job, err := c.Store.CreateJob(t.Context(), pipeline.Job{
		ID: id, Project: pipeline.DefaultProject, Spec: media.Spec{Preset: "hls"},
		Source: pipeline.Source{ObjectKey: key, SizeBytes: int64(len(id)), ETag: "etag"},
	}, pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)

	return job
}

// Job returns a job as it is now.
func (c *Cell) Job(t testing.TB, id string) pipeline.Job {
	t.Helper()

	job, err := c.Store.GetJob(t.Context(), id)
	require.NoError(t, err)

	return job
}

// Ended waits for the end of a job. The test's context bounds the wait.
func (c *Cell) Ended(t testing.TB, id string) pipeline.Job {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	notices, err := c.Store.WatchJob(ctx, id)
	require.NoError(t, err)

	defer func() {
		cancel()

		for range notices { // closed when the watch has ended
		}
	}()

	for {
		if job := c.Job(t, id); job.State.Terminal() {
			return job
		}

		if _, open := <-notices; !open {
			require.FailNow(t, "the job doesn't end", "%+v", c.Job(t, id))
		}
	}
}

// API is the pool's API at a replica, for callers that are no worker.
func (c *Cell) API(replica string) tcoderv1connect.PoolServiceClient {
	return tcoderv1connect.NewPoolServiceClient(c.Network.Client("caller"), "http://"+replica)
}

// running waits at the end of a test for what runs beside it.
func running(t testing.TB, stop func(), run func()) {
	t.Helper()

	var group sync.WaitGroup

	group.Go(run)
	t.Cleanup(func() {
		stop()
		group.Wait()
	})
}
