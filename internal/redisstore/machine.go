package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// machine is a machine as Lua keeps it.
type machine struct {
	ID         string                `json:"id"`
	State      pipeline.MachineState `json:"state"`
	Provider   string                `json:"provider"`
	ProviderID string                `json:"provider_id"`
	Region     string                `json:"region"`
	Created    int64                 `json:"created"`
	Changed    int64                 `json:"changed"`
	Reason     pipeline.Reason       `json:"reason"`
	Message    string                `json:"message"`
}

func decodeMachine(raw string) (pipeline.Machine, error) {
	var m machine
	if err := decode(raw, &m); err != nil {
		return pipeline.Machine{}, err
	}

	return pipeline.Machine{
		ID: m.ID, State: m.State, Provider: m.Provider, ProviderID: m.ProviderID, Region: m.Region,
		Created: asTime(m.Created), Changed: asTime(m.Changed), Failure: failure(m.Reason, m.Message),
	}, nil
}

// ReserveMachine implements [pipeline.PoolStore].
func (s *Store) ReserveMachine(ctx context.Context, m pipeline.Machine, limit int, term int64) (bool, error) {
	reply, err := s.callRows(ctx, 1, "reserve_machine", []string{s.keys.machines},
		m.ID, limit, m.Provider, m.ProviderID, m.Region, term)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}

// MoveMachine implements [pipeline.PoolStore].
func (s *Store) MoveMachine(ctx context.Context, m pipeline.MachineMove) (pipeline.Machine, error) {
	var why pipeline.Failure
	if m.Failure != nil {
		why = *m.Failure
	}

	reply, err := s.callRows(ctx, 1, "move_machine", []string{s.keys.machines},
		m.ID, string(m.By), m.ProviderID, m.Region, string(why.Reason), why.Message, m.Term)
	if err != nil {
		return pipeline.Machine{}, err
	}

	return decodeMachine(asString(reply[0]))
}

// GetMachine implements [pipeline.PoolStore].
func (s *Store) GetMachine(ctx context.Context, id string) (pipeline.Machine, error) {
	raw, err := s.client.HGet(ctx, s.keys.machines, id).Result()

	switch {
	case errors.Is(err, redis.Nil):
		return pipeline.Machine{}, refusal(pipeline.ReasonMachineNotFound)
	case err != nil:
		return pipeline.Machine{}, failed("get machine", err)
	}

	return decodeMachine(raw)
}

// ListMachines implements [pipeline.PoolStore].
func (s *Store) ListMachines(ctx context.Context) ([]pipeline.Machine, error) {
	raws, err := s.client.HVals(ctx, s.keys.machines).Result()
	if err != nil {
		return nil, failed("list machines", err)
	}

	return decodeMachines(raws)
}

// decodeMachines reads machines, and sorts them by id.
func decodeMachines(raws []string) ([]pipeline.Machine, error) {
	machines := make([]pipeline.Machine, 0, len(raws))

	for _, raw := range raws {
		m, err := decodeMachine(raw)
		if err != nil {
			return nil, err
		}

		machines = append(machines, m)
	}

	slices.SortFunc(machines, func(a, b pipeline.Machine) int { return strings.Compare(a.ID, b.ID) })

	return machines, nil
}

// LoseMachine implements [pipeline.PoolStore].
func (s *Store) LoseMachine(ctx context.Context, id string, term int64) error {
	_, err := s.call(ctx, "lose_machine", []string{s.keys.machineWorkers(id)},
		id, string(pipeline.ReasonWorkerLost), "The worker's machine is gone.", term)

	return err
}
