package mapper

import (
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
