package memstore

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// ReserveMachine implements [pipeline.PoolStore].
func (s *Store) ReserveMachine(_ context.Context, m pipeline.Machine, limit int, term int64) (bool, error) {
	defer s.begin()()

	if err := s.mayAct(term); err != nil {
		return false, err
	}

	if s.machines[m.ID] != nil {
		return true, nil
	}

	if len(s.machines) >= limit { // a failed one may still be there
		return false, nil
	}

	m.State, m.Created, m.Changed, m.Failure = pipeline.MachineCreating, s.now, s.now, nil
	s.machines[m.ID] = &m

	return true, nil
}

// mayAct refuses the term of a leader that another one has followed.
func (s *Store) mayAct(term int64) error {
	if term != 0 && term != s.term {
		return refuse(pipeline.ReasonLeaseLost, "Another replica leads by now.")
	}

	return nil
}

// MoveMachine implements [pipeline.PoolStore].
func (s *Store) MoveMachine(_ context.Context, move pipeline.MachineMove) (pipeline.Machine, error) {
	defer s.begin()()

	if err := s.mayAct(move.Term); err != nil {
		return pipeline.Machine{}, err
	}

	m := s.machines[move.ID]
	if m == nil {
		if move.By == pipeline.MachineDestroy {
			return pipeline.Machine{ID: move.ID, State: pipeline.MachineDestroyed}, nil
		}

		return pipeline.Machine{}, noMachine()
	}

	if move.ProviderID != "" {
		m.ProviderID = move.ProviderID
	}

	if move.Region != "" {
		m.Region = move.Region
	}

	if s.moveMachine(m, move.By) {
		m.Failure = move.Failure
	}

	if m.State == pipeline.MachineDestroyed {
		delete(s.machines, move.ID)
	}

	return *m, nil
}

func noMachine() error { return refuse(pipeline.ReasonMachineNotFound, "There is no such machine.") }

// GetMachine implements [pipeline.PoolStore].
func (s *Store) GetMachine(_ context.Context, id string) (pipeline.Machine, error) {
	defer s.begin()()

	m := s.machines[id]
	if m == nil {
		return pipeline.Machine{}, noMachine()
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

	return s.listMachines(), nil
}

func (s *Store) listMachines() []pipeline.Machine {
	machines := make([]pipeline.Machine, 0, len(s.machines))
	for _, m := range s.machines {
		machines = append(machines, *m)
	}

	slices.SortFunc(machines, func(a, b pipeline.Machine) int { return strings.Compare(a.ID, b.ID) })

	return machines
}

// LoseMachine implements [pipeline.PoolStore].
func (s *Store) LoseMachine(_ context.Context, id string, term int64) error {
	defer s.begin()()

	if err := s.mayAct(term); err != nil {
		return err
	}

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
