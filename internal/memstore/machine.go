package memstore

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// ReserveMachine implements [pipeline.PoolStore].
func (s *Store) ReserveMachine(_ context.Context, m pipeline.Machine, limit int) (bool, error) {
	defer s.begin()()

	if s.machines[m.ID] != nil {
		return true, nil
	}

	live := 0

	for _, other := range s.machines {
		if other.State != pipeline.MachineFailed && other.State != pipeline.MachineDestroyed {
			live++
		}
	}

	if live >= limit {
		return false, nil
	}

	m.State, m.Created, m.Changed, m.Failure = pipeline.MachineCreating, s.now, s.now, nil
	s.machines[m.ID] = &m

	return true, nil
}

// MoveMachine implements [pipeline.PoolStore].
func (s *Store) MoveMachine(
	_ context.Context, id string, by pipeline.MachineTransition, providerID string, f *pipeline.Failure,
) (pipeline.Machine, error) {
	defer s.begin()()

	m := s.machines[id]
	if m == nil {
		if by == pipeline.MachineDestroy {
			return pipeline.Machine{ID: id, State: pipeline.MachineDestroyed}, nil
		}

		return pipeline.Machine{}, refuse(pipeline.ReasonMachineNotFound, "There is no such machine.")
	}

	if providerID != "" {
		m.ProviderID = providerID
	}

	if s.moveMachine(m, by) {
		m.Failure = f
	}

	if m.State == pipeline.MachineDestroyed {
		delete(s.machines, id)
	}

	return *m, nil
}

// moveMachine moves a machine; false if the table forbids it.
func (s *Store) moveMachine(m *pipeline.Machine, by pipeline.MachineTransition) bool {
	to, ok := m.State.Next(by)
	if ok {
		m.State, m.Changed = to, s.now
	}

	return ok
}

// ListMachines implements [pipeline.PoolStore].
func (s *Store) ListMachines(context.Context) ([]pipeline.Machine, error) {
	defer s.begin()()

	machines := make([]pipeline.Machine, 0, len(s.machines))
	for _, m := range s.machines {
		machines = append(machines, *m)
	}

	slices.SortFunc(machines, func(a, b pipeline.Machine) int { return strings.Compare(a.ID, b.ID) })

	return machines, nil
}

// LoseMachine implements [pipeline.PoolStore].
func (s *Store) LoseMachine(_ context.Context, id string) error {
	defer s.begin()()

	for _, workerID := range slices.Sorted(maps.Keys(s.workers)) {
		if id == "" || s.workers[workerID].rec.MachineID != id {
			continue
		}

		for _, t := range s.held(workerID) {
			if t.rec.State == pipeline.TaskLeased { // the one before may have killed their job
				s.blame(t, pipeline.OutcomeReleased, &pipeline.Failure{
					Reason: pipeline.ReasonWorkerLost, Message: "The worker's machine is gone.",
				})
			}

			s.wake(pipeline.WakeWorker)
		}

		delete(s.workers, workerID)
	}

	return nil
}
