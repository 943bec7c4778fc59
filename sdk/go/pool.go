package tcoder

import (
	"context"
	"errors"
	"iter"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Pool reads the pool: its limit, what runs and what waits, and what keeps
// machines from coming.
func (c *Client) Pool(ctx context.Context) (*tcoderv1.GetPoolResponse, error) {
	return call(ctx, c, defaultCallTimeout, c.pool.GetPool, &tcoderv1.GetPoolRequest{})
}

// Workers lists the workers by id.
func (c *Client) Workers(ctx context.Context) ([]*tcoderv1.Worker, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.ListWorkers, &tcoderv1.ListWorkersRequest{})

	return res.GetWorkers(), err
}

// Machines lists the pool's machines by id.
func (c *Client) Machines(ctx context.Context) ([]*tcoderv1.Machine, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.ListMachines, &tcoderv1.ListMachinesRequest{})

	return res.GetMachines(), err
}

// DrainWorker tells a worker to finish what ends soon, hand back the rest, and
// exit.
func (c *Client) DrainWorker(ctx context.Context, workerID string) (*tcoderv1.Worker, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.DrainWorker,
		&tcoderv1.DrainWorkerRequest{WorkerId: workerID})

	return res.GetWorker(), err
}

// DrainMachine is DrainWorker for all workers of a machine, which stops then.
func (c *Client) DrainMachine(ctx context.Context, machineID string) (*tcoderv1.Machine, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.DrainMachine,
		&tcoderv1.DrainMachineRequest{MachineId: machineID})

	return res.GetMachine(), err
}

// UpdatePool changes settings of the pool while it runs, for good. What the
// request leaves out stays as it is. The answer has all of them.
func (c *Client) UpdatePool(ctx context.Context, change *tcoderv1.UpdatePoolRequest) (*tcoderv1.PoolSettings, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.pool.UpdatePool, change)

	return res.GetSettings(), err
}

// WatchPool yields the whole pool, and again whenever something has changed.
// When the connection is lost it is opened again. It ends with ctx, or with
// the first error that a new connection doesn't mend.
func (c *Client) WatchPool(ctx context.Context) iter.Seq2[*tcoderv1.WatchPoolResponse, error] {
	return func(yield func(*tcoderv1.WatchPoolResponse, error) bool) {
		retry := c.newRetrier()
		for {
			err := c.followPool(ctx, retry, yield)
			switch {
			case errors.Is(err, errStopped):
				return
			case ctx.Err() != nil:
				yield(nil, contextError(ctx))

				return
			}
			refusal := watchError(err)
			if !again(err) || !retry.wait(ctx, refusal.RetryAfter) {
				if ctx.Err() != nil {
					yield(nil, contextError(ctx))
				} else {
					yield(nil, refusal)
				}

				return
			}
		}
	}
}

// followPool reads one stream, which the server never ends in peace.
func (c *Client) followPool(ctx context.Context, retry *retrier, yield func(*tcoderv1.WatchPoolResponse, error) bool) error {
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(c.watchIdle, func() { cancel(errIdle) })
	defer idle.Stop()
	stream, err := c.pool.WatchPool(streamCtx, &tcoderv1.WatchPoolRequest{})
	if err != nil {
		return idleOr(streamCtx, err)
	}
	defer stream.Close() //nolint:errcheck // its error is that of Err
	for stream.Receive() {
		idle.Stop() // the caller may take its time
		c.reached.Store(true)
		retry.reset(c.retry.Patience)
		if !yield(stream.Msg(), nil) {
			return errStopped
		}
		idle.Reset(c.watchIdle)
	}
	if err := stream.Err(); err != nil {
		return idleOr(streamCtx, err)
	}

	return errCut
}
