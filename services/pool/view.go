package pool

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// providerNone is the provider of a pool of self-managed workers alone.
const providerNone = "none"

// GetPool counts what the pool has and what waits.
func (s *Service) GetPool(ctx context.Context, _ *tcoderv1.GetPoolRequest) (*tcoderv1.GetPoolResponse, error) {
	stats, err := s.deps.Store.PoolStats(ctx)
	if err != nil {
		return nil, err
	}
	workers, err := s.deps.Store.ListWorkers(ctx)
	if err != nil {
		return nil, err
	}
	machines, err := s.deps.Store.ListMachines(ctx)
	if err != nil {
		return nil, err
	}
	pool := &tcoderv1.GetPoolResponse{
		Provider:     s.cfg.Provider,
		MachineLimit: uint32(s.cfg.MachineLimit),
		ReadyTasks:   uint64(stats.ReadyTasks),
		LeasedTasks:  uint64(stats.LeasedTasks),
		DelayedTasks: uint64(stats.DelayedTasks),
	}
	if stats.ReadyTasks > 0 {
		pool.OldestReady = durationpb.New(stats.OldestReady)
	}
	for _, m := range machines {
		if m.State != pipeline.MachineFailed && m.State != pipeline.MachineDestroyed {
			pool.Machines++
		}
	}
	for _, w := range workers {
		if w.Attached {
			pool.Workers++
			pool.Slots += uint32(w.Slots)
			pool.BusySlots += uint32(len(w.Held))
		}
	}
	pool.HoldReason = s.holdReason(pool)
	return pool, nil
}

func (s *Service) holdReason(pool *tcoderv1.GetPoolResponse) string {
	switch {
	case pool.GetReadyTasks() == 0:
		return ""
	case s.cfg.Provider == providerNone:
		if pool.GetWorkers() == 0 {
			return "No worker is attached, and this pool makes none."
		}
		return ""
	case pool.GetMachines() >= pool.GetMachineLimit():
		return "The pool is at its limit of machines."
	case s.deps.HoldReason != nil:
		return s.deps.HoldReason()
	default:
		return ""
	}
}

// ListWorkers lists the workers that were heard of lately.
func (s *Service) ListWorkers(ctx context.Context, _ *tcoderv1.ListWorkersRequest) (*tcoderv1.ListWorkersResponse, error) {
	workers, err := s.deps.Store.ListWorkers(ctx)
	if err != nil {
		return nil, err
	}
	list := &tcoderv1.ListWorkersResponse{}
	for _, w := range workers {
		list.Workers = append(list.Workers, mapper.WorkerToProto(w))
	}
	return list, nil
}

// ListMachines lists the machines.
func (s *Service) ListMachines(ctx context.Context, _ *tcoderv1.ListMachinesRequest) (*tcoderv1.ListMachinesResponse, error) {
	machines, err := s.deps.Store.ListMachines(ctx)
	if err != nil {
		return nil, err
	}
	list := &tcoderv1.ListMachinesResponse{}
	for _, m := range machines {
		list.Machines = append(list.Machines, mapper.MachineToProto(m))
	}
	return list, nil
}

// DrainWorker marks a worker. The replica that holds its stream tells it.
func (s *Service) DrainWorker(ctx context.Context, req *tcoderv1.DrainWorkerRequest) (*tcoderv1.DrainWorkerResponse, error) {
	w, err := s.deps.Store.DrainWorker(ctx, req.GetWorkerId())
	if err != nil {
		return nil, err
	}
	signal(s.checks)
	return &tcoderv1.DrainWorkerResponse{Worker: mapper.WorkerToProto(w)}, nil
}
