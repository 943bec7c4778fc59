package pool

import (
	"context"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// providerNone is the provider of a pool of self-managed workers alone.
const providerNone = "none"

var errNobodyToTell = &pipeline.Error{
	Reason: pipeline.ReasonWorkerNotFound, Message: "No worker of the machine is attached.", Remedy: "Try again once its worker has attached.",
}

// GetPool counts what the pool has and what waits.
func (s *Service) GetPool(ctx context.Context, _ *tcoderv1.GetPoolRequest) (*tcoderv1.GetPoolResponse, error) {
	view, err := s.deps.Store.ReadPool(ctx)
	if err != nil {
		return nil, err
	}
	return s.poolMessage(view), nil
}

// poolMessage is the pool as its operator sees it.
func (s *Service) poolMessage(view pipeline.PoolView) *tcoderv1.GetPoolResponse {
	pool := mapper.PoolToProto(view)
	pool.Provider = s.cfg.Provider
	if s.cfg.Provider == providerNone {
		if pool.GetReadyTasks() > 0 && pool.GetWorkers() == 0 {
			pool.HoldReason = "No worker is attached, and this pool makes none."
		}
		return pool
	}
	settings := view.Change.Of(s.cfg.Settings)
	pool.Settings = mapper.PoolSettingsToProto(settings)
	pool.MachineLimit = uint32(settings.Limit)
	return pool
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

// DrainMachine marks the workers of a machine, and the machine.
func (s *Service) DrainMachine(ctx context.Context, req *tcoderv1.DrainMachineRequest) (*tcoderv1.DrainMachineResponse, error) {
	m, err := s.deps.Store.GetMachine(ctx, req.GetMachineId())
	if err != nil {
		return nil, err
	}
	workers, err := s.deps.Store.ListWorkers(ctx)
	if err != nil {
		return nil, err
	}
	told := false
	for _, w := range workers {
		if w.MachineID != m.ID {
			continue
		}
		if _, err := s.deps.Store.DrainWorker(ctx, w.ID); err != nil {
			return nil, err
		}
		told = true
	}
	signal(s.checks)
	switch {
	case told:
		if m, err = s.deps.Store.MoveMachine(ctx, pipeline.MachineMove{ID: m.ID, By: pipeline.MachineDrain}); err != nil {
			return nil, err
		}
	case m.State == pipeline.MachineCreating, m.State == pipeline.MachineStarting, m.State == pipeline.MachineRunning:
		return nil, errNobodyToTell
	default: // it stops, or has stopped
	}
	return &tcoderv1.DrainMachineResponse{Machine: mapper.MachineToProto(m)}, nil
}
