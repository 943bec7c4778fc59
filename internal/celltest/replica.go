package celltest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/pool"
	"github.com/tcoder-dev/tcoder/services/publish"
	"github.com/tcoder-dev/tcoder/services/sweep"
)

// Lease is how long leases last in a cell, Heartbeat how often workers are
// heard: the defaults of the product.
const (
	Lease     = 20 * time.Second
	Heartbeat = 5 * time.Second
)

// Replica is one life of a control plane.
type Replica struct {
	Name  string
	Store *Spy // its calls to the cell's store

	cell  *Cell
	pool  *pool.Service
	stop  context.CancelFunc
	ended chan struct{}
}

// Replica starts a control plane under a name. It serves when this returns.
func (c *Cell) Replica(t testing.TB, name string, change ...func(*pool.Config)) *Replica {
	t.Helper()

	return c.ReplicaOn(t, name, c.Store, change...)
}

// ReplicaOn is Replica with another connection to the cell's store.
func (c *Cell) ReplicaOn(t testing.TB, name string, store pipeline.Store, change ...func(*pool.Config)) *Replica {
	t.Helper()

	log := c.Log.With("replica", name)
	spy := &Spy{Store: store}
	publisher := publish.New(spy, c.Out, log)
	config := pool.Config{
		Heartbeat: Heartbeat, Lease: Lease, Retry: pipeline.DefaultRetryPolicy(), Provider: "none",
		Limits: media.Limits{MaxDuration: time.Hour},
	}

	for _, f := range change {
		f(&config)
	}

	workers := pool.New(config, pool.Deps{Store: spy, In: c.In, Out: c.Out, Publish: publisher.Publish, Log: log})
	sweeper := sweep.New(sweep.Config{Replica: name, Lease: config.Lease, Retry: config.Retry}, sweep.Deps{
		Store: spy, In: c.In, Out: c.Out, Attached: workers.Attached, Publish: publisher.Publish, Stream: publisher.Stream, Log: log,
		ExpireUpload: func(context.Context, string) error { return nil },
	})

	listener, err := c.Network.Listen(name)
	require.NoError(t, err)

	server, err := services.New(services.Config{AllowedHosts: []string{"*"}}, services.Deps{
		Uploads: tcoderv1connect.UnimplementedUploadServiceHandler{}, Jobs: tcoderv1connect.UnimplementedJobServiceHandler{},
		Pool: workers, Loops: []services.Loop{workers, sweeper}, Ready: func(context.Context) error { return nil },
		Listener: listener, Log: log,
	})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &Replica{Name: name, Store: spy, cell: c, pool: workers, stop: cancel, ended: make(chan struct{})}

	running(t, cancel, func() {
		defer close(r.ended)

		if err := server.Run(ctx); err != nil {
			t.Errorf("replica %s: %v", name, err)
		}
	})
	<-server.Serving()

	return r
}

// Attached names the workers whose sessions the replica holds.
func (r *Replica) Attached() []string { return r.pool.Attached() }

// Terminate stops the replica as SIGTERM does. The channel is closed when it
// has ended.
func (r *Replica) Terminate() <-chan struct{} {
	r.stop()

	return r.ended
}

// Stop is Terminate that waits for the end.
func (r *Replica) Stop() { <-r.Terminate() }

// Kill ends the replica as a power cut does: nobody is told anything.
func (r *Replica) Kill() {
	r.Store.Fail(func(string) error {
		return &pipeline.Error{Reason: pipeline.ReasonStateUnavailable, Message: "The replica is dead."}
	})
	r.cell.Network.Refuse("", r.Name, true)
	r.cell.Network.Lose("", r.Name)
	r.Stop()
	r.cell.Network.Cut("", r.Name)
	r.cell.Network.Refuse("", r.Name, false)
}
