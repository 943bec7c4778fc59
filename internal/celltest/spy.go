package celltest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Spy stands between a replica and the store: it counts the calls, and makes
// them, or their answers, get lost. Its methods are those of [pipeline.Store]
// that a control plane's pool, sweeper and publisher need.
type Spy struct {
	Store pipeline.Store

	mu            sync.Mutex
	counts        map[string]int
	before, after func(method string) error
}

// Fail has f called before each call to the store, with its name. An error of
// f is the answer, and the call isn't made.
func (s *Spy) Fail(f func(method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.before = f
}

// LoseAnswer has f called after each call. An error of f is the answer,
// though the call was made.
func (s *Spy) LoseAnswer(f func(method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.after = f
}

// Counts returns how often each method was called, and forgets it.
func (s *Spy) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()

	counts := maps.Clone(s.counts)
	s.counts = nil

	return counts
}

func (s *Spy) call(method string, f func() error) error {
	s.mu.Lock()
	before, after := s.before, s.after

	if s.counts == nil {
		s.counts = map[string]int{}
	}

	s.counts[method]++
	s.mu.Unlock()

	if before != nil {
		if err := before(method); err != nil {
			return err
		}
	}

	err := f()

	if after != nil {
		if lost := after(method); lost != nil {
			return lost
		}
	}

	return err
}

// GetJob implements [pipeline.Store].
func (s *Spy) GetJob(ctx context.Context, id string) (job pipeline.Job, err error) {
	err = s.call("GetJob", func() (err error) {
		job, err = s.Store.GetJob(ctx, id)

		return err
	})

	return job, err
}

// CompleteJob implements [pipeline.Store].
func (s *Spy) CompleteJob(ctx context.Context, id string, run int, outputs []media.Output) (done bool, err error) {
	err = s.call("CompleteJob", func() (err error) {
		done, err = s.Store.CompleteJob(ctx, id, run, outputs)

		return err
	})

	return done, err
}

// ClaimTasks implements [pipeline.Store].
func (s *Spy) ClaimTasks(ctx context.Context, c pipeline.Claim) (got pipeline.Claimed, err error) {
	err = s.call("ClaimTasks", func() (err error) {
		got, err = s.Store.ClaimTasks(ctx, c)

		return err
	})

	return got, err
}

// RenewLeases implements [pipeline.Store].
func (s *Spy) RenewLeases(ctx context.Context, id string, lease time.Duration, rs []pipeline.Renewal) (got pipeline.Renewed, err error) {
	err = s.call("RenewLeases", func() (err error) {
		got, err = s.Store.RenewLeases(ctx, id, lease, rs)

		return err
	})

	return got, err
}

// FinishTask implements [pipeline.Store].
func (s *Spy) FinishTask(ctx context.Context, r pipeline.TaskResult) (v pipeline.Verdict, last bool, err error) {
	err = s.call("FinishTask", func() (err error) {
		v, last, err = s.Store.FinishTask(ctx, r)

		return err
	})

	return v, last, err
}

// FailTask implements [pipeline.Store].
func (s *Spy) FailTask(ctx context.Context, f pipeline.TaskFault) (v pipeline.Verdict, err error) {
	err = s.call("FailTask", func() (err error) {
		v, err = s.Store.FailTask(ctx, f)

		return err
	})

	return v, err
}

// ReleaseTask implements [pipeline.Store].
func (s *Spy) ReleaseTask(ctx context.Context, id string, ref pipeline.LeaseRef) (v pipeline.Verdict, err error) {
	err = s.call("ReleaseTask", func() (err error) {
		v, err = s.Store.ReleaseTask(ctx, id, ref)

		return err
	})

	return v, err
}

// AttachWorker implements [pipeline.Store].
func (s *Spy) AttachWorker(ctx context.Context, w pipeline.Worker, lease time.Duration) (session int64, kept []pipeline.Lease, err error) {
	err = s.call("AttachWorker", func() (err error) {
		session, kept, err = s.Store.AttachWorker(ctx, w, lease)

		return err
	})

	return session, kept, err
}

// DetachWorker implements [pipeline.Store].
func (s *Spy) DetachWorker(ctx context.Context, id string, session int64, gone bool) error {
	return s.call("DetachWorker", func() error { return s.Store.DetachWorker(ctx, id, session, gone) })
}

// DrainWorker implements [pipeline.Store].
func (s *Spy) DrainWorker(ctx context.Context, id string) (w pipeline.Worker, err error) {
	err = s.call("DrainWorker", func() (err error) {
		w, err = s.Store.DrainWorker(ctx, id)

		return err
	})

	return w, err
}

// LeaveWorker implements [pipeline.Store].
func (s *Spy) LeaveWorker(ctx context.Context, id string, session int64, minWarm int) (may bool, err error) {
	err = s.call("LeaveWorker", func() (err error) {
		may, err = s.Store.LeaveWorker(ctx, id, session, minWarm)

		return err
	})

	return may, err
}

// ListWorkers implements [pipeline.Store].
func (s *Spy) ListWorkers(ctx context.Context) (ws []pipeline.Worker, err error) {
	err = s.call("ListWorkers", func() (err error) {
		ws, err = s.Store.ListWorkers(ctx)

		return err
	})

	return ws, err
}

// ListMachines implements [pipeline.Store].
func (s *Spy) ListMachines(ctx context.Context) (ms []pipeline.Machine, err error) {
	err = s.call("ListMachines", func() (err error) {
		ms, err = s.Store.ListMachines(ctx)

		return err
	})

	return ms, err
}

// GetMachine implements [pipeline.Store].
func (s *Spy) GetMachine(ctx context.Context, id string) (answer pipeline.Machine, err error) {
	err = s.call("GetMachine", func() (err error) {
		answer, err = s.Store.GetMachine(ctx, id)

		return err
	})

	return answer, err
}

// MoveMachine implements [pipeline.Store].
func (s *Spy) MoveMachine(ctx context.Context, move pipeline.MachineMove) (answer pipeline.Machine, err error) {
	err = s.call("MoveMachine", func() (err error) {
		answer, err = s.Store.MoveMachine(ctx, move)

		return err
	})

	return answer, err
}

// ReadPool implements [pipeline.Store].
func (s *Spy) ReadPool(ctx context.Context) (answer pipeline.PoolView, err error) {
	err = s.call("ReadPool", func() (err error) {
		answer, err = s.Store.ReadPool(ctx)

		return err
	})

	return answer, err
}

// ChangePool implements [pipeline.Store].
func (s *Spy) ChangePool(ctx context.Context, c pipeline.PoolChange, version int64) (answer bool, err error) {
	err = s.call("ChangePool", func() (err error) {
		answer, err = s.Store.ChangePool(ctx, c, version)

		return err
	})

	return answer, err
}

// PoolStats implements [pipeline.Store].
func (s *Spy) PoolStats(ctx context.Context) (stats pipeline.PoolStats, err error) {
	err = s.call("PoolStats", func() (err error) {
		stats, err = s.Store.PoolStats(ctx)

		return err
	})

	return stats, err
}

// Wakes implements [pipeline.Store].
func (s *Spy) Wakes(ctx context.Context) (wakes <-chan pipeline.Wake, err error) {
	err = s.call("Wakes", func() (err error) {
		wakes, err = s.Store.Wakes(ctx)

		return err
	})

	return wakes, err
}

// Sweep implements [pipeline.Store].
func (s *Spy) Sweep(ctx context.Context, r pipeline.SweepRequest) (swept pipeline.Swept, err error) {
	err = s.call("Sweep", func() (err error) {
		swept, err = s.Store.Sweep(ctx, r)

		return err
	})

	return swept, err
}

// EndDuty implements [pipeline.Store].
func (s *Spy) EndDuty(ctx context.Context, d pipeline.Duty) error {
	return s.call("EndDuty", func() error { return s.Store.EndDuty(ctx, d) })
}

// Resign implements [pipeline.Store].
func (s *Spy) Resign(ctx context.Context, replica string) error {
	return s.call("Resign", func() error { return s.Store.Resign(ctx, replica) })
}

// CommitSegments implements [pipeline.Store].
func (s *Spy) CommitSegments(ctx context.Context, c pipeline.SegmentCommit) (v pipeline.Verdict, err error) {
	err = s.call("CommitSegments", func() (err error) {
		v, err = s.Store.CommitSegments(ctx, c)

		return err
	})

	return v, err
}

// ReadStream implements [pipeline.Store].
func (s *Spy) ReadStream(ctx context.Context, id string, run int, after int64) (answer pipeline.Stream, err error) {
	err = s.call("ReadStream", func() (err error) {
		answer, err = s.Store.ReadStream(ctx, id, run, after)

		return err
	})

	return answer, err
}

// StreamPublished implements [pipeline.Store].
func (s *Spy) StreamPublished(ctx context.Context, p pipeline.Publication) (live bool, err error) {
	err = s.call("StreamPublished", func() (err error) {
		live, err = s.Store.StreamPublished(ctx, p)

		return err
	})

	return live, err
}
