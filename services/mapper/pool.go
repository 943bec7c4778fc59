package mapper

import (
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// WorkerToProto returns the message of a worker.
func WorkerToProto(w pipeline.Worker) *tcoderv1.Worker {
	state := tcoderv1.WorkerState_WORKER_STATE_IDLE
	switch {
	case !w.Attached:
		state = tcoderv1.WorkerState_WORKER_STATE_DETACHED
	case w.Draining:
		state = tcoderv1.WorkerState_WORKER_STATE_DRAINING
	case len(w.Held) > 0:
		state = tcoderv1.WorkerState_WORKER_STATE_BUSY
	}

	return &tcoderv1.Worker{
		Id:         w.ID,
		MachineId:  w.MachineID,
		State:      state,
		Version:    w.Version,
		Slots:      uint32(w.Slots),
		Held:       mapSlice(w.Held, LeaseRefToProto),
		AttachedAt: timeToProto(w.FirstSeen),
		LastSeenAt: timeToProto(w.LastSeen),
		Encoders:   mapSlice(w.Encoders, videoCodecToProto),
		Cpus:       uint32(w.CPUs),
	}
}

// WorkerFromProto returns the worker that a Hello introduces.
func WorkerFromProto(h *tcoderv1.Hello) pipeline.Worker {
	return pipeline.Worker{
		ID:        h.GetWorkerId(),
		MachineID: h.GetMachineId(),
		Version:   h.GetVersion(),
		Slots:     int(h.GetSlots()),
		CPUs:      int(h.GetCpus()),
		Encoders:  mapSlice(h.GetEncoders(), videoCodecFromProto),
		Draining:  h.GetDraining(),
		Held:      mapSlice(h.GetHeld(), LeaseRefFromProto),
	}
}

// MachineToProto returns the message of a machine.
func MachineToProto(m pipeline.Machine) *tcoderv1.Machine {
	return &tcoderv1.Machine{
		Id:         m.ID,
		State:      MachineStateToProto(m.State),
		Provider:   m.Provider,
		ProviderId: m.ProviderID,
		Region:     m.Region,
		CreatedAt:  timeToProto(m.Created),
		ChangedAt:  timeToProto(m.Changed),
		Failure:    FailureToProto(m.Failure),
	}
}

// LeaseRefToProto returns the message that names a lease.
func LeaseRefToProto(r pipeline.LeaseRef) *tcoderv1.LeaseRef {
	return &tcoderv1.LeaseRef{TaskId: r.TaskID, Attempt: uint32(r.Attempt)}
}

// LeaseRefFromProto returns the lease that a message names.
func LeaseRefFromProto(r *tcoderv1.LeaseRef) pipeline.LeaseRef {
	return pipeline.LeaseRef{TaskID: r.GetTaskId(), Attempt: int(r.GetAttempt())}
}

// RenewalFromProto returns the renewal that a task's progress stands for.
func RenewalFromProto(p *tcoderv1.TaskProgress) pipeline.Renewal {
	return pipeline.Renewal{
		Ref:      LeaseRefFromProto(p.GetLease()),
		Fraction: p.GetFraction(),
		Progress: pipeline.Progress{
			MediaTime: p.GetMediaTime().AsDuration(),
			Speed:     p.GetSpeed(),
			FPS:       p.GetFps(),
		},
	}
}

// PoolToProto returns the message of a pool, without what a control plane
// knows by its configuration: provider, limit and settings.
func PoolToProto(v pipeline.PoolView) *tcoderv1.GetPoolResponse {
	pool := &tcoderv1.GetPoolResponse{
		ReadyTasks:      uint64(v.Stats.ReadyTasks),
		LeasedTasks:     uint64(v.Stats.LeasedTasks),
		DelayedTasks:    uint64(v.Stats.DelayedTasks),
		LimitedTasks:    uint64(v.Stats.LimitedTasks),
		HoldReason:      v.Report.HoldReason,
		DesiredMachines: uint32(v.Report.Desired),
		Problems:        mapSlice(v.Report.Problems, ProblemToProto),
	}
	if v.Stats.ReadyTasks > 0 {
		pool.OldestReady = durationpb.New(v.Stats.OldestReady)
		pool.WaitingWork = durationToProto(v.Report.WaitingWork)
	}
	for _, m := range v.Machines {
		pool.Machines++
		switch m.State {
		case pipeline.MachineCreating, pipeline.MachineStarting:
			pool.StartingMachines++
		case pipeline.MachineRunning, pipeline.MachineDraining, pipeline.MachineStopping:
			pool.RunningMachines++
		case pipeline.MachineStopped:
			pool.StoppedMachines++
		case pipeline.MachineFailed, pipeline.MachineDestroyed: // about to be removed
		}
	}
	for _, w := range v.Workers {
		if w.Attached {
			pool.Workers++
			pool.Slots += uint32(w.Slots)
			pool.BusySlots += uint32(len(w.Held))
		}
	}

	return pool
}

// ProblemToProto returns the message of a problem.
func ProblemToProto(p pipeline.Problem) *tcoderv1.PoolProblem {
	return &tcoderv1.PoolProblem{
		Kind:      ProblemKindToProto(p.Kind),
		Message:   p.Message,
		Region:    p.Region,
		MachineId: p.MachineID,
		Since:     timeToProto(p.Since),
		Times:     uint32(p.Times),
		NextTryAt: timeToProto(p.NextTry),
	}
}

// PoolSettingsToProto returns the message of settings.
func PoolSettingsToProto(s pipeline.PoolSettings) *tcoderv1.PoolSettings {
	return &tcoderv1.PoolSettings{
		MinWarm:       uint32(s.MinWarm),
		MachineLimit:  uint32(s.Limit),
		IdleThreshold: durationpb.New(s.Idle),
		KeepStopped:   uint32(s.KeepStopped),
		Regions:       s.Regions,
		EncodeSize:    s.EncodeSize,
		LightSize:     s.LightSize,
	}
}

// PoolChangeFromProto returns the change that a request asks for.
func PoolChangeFromProto(r *tcoderv1.UpdatePoolRequest) pipeline.PoolChange {
	c := pipeline.PoolChange{
		MinWarm:     count(r.MinWarm),
		Limit:       count(r.MachineLimit),
		KeepStopped: count(r.KeepStopped),
		EncodeSize:  r.EncodeSize,
		LightSize:   r.LightSize,
	}
	if r.GetIdleThreshold() != nil {
		idle := r.GetIdleThreshold().AsDuration()
		c.Idle = &idle
	}
	if r.GetRegions() != nil {
		regions := append([]string{}, r.GetRegions().GetNames()...)
		c.Regions = &regions
	}

	return c
}

func count(n *uint32) *int {
	if n == nil {
		return nil
	}
	i := int(*n)

	return &i
}
