package redisstore

import (
	"context"
	"slices"
	"strings"
	"time"

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
func (s *Store) ReserveMachine(ctx context.Context, m pipeline.Machine, limit int) (bool, error) {
	reply, err := s.callRows(ctx, 1, "reserve_machine", []string{s.keys.machines},
		m.ID, limit, m.Provider, m.ProviderID, m.Region)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}

// MoveMachine implements [pipeline.PoolStore].
func (s *Store) MoveMachine(
	ctx context.Context, id string, by pipeline.MachineTransition, providerID string, f *pipeline.Failure,
) (pipeline.Machine, error) {
	var why pipeline.Failure
	if f != nil {
		why = *f
	}

	reply, err := s.callRows(ctx, 1, "move_machine", []string{s.keys.machines},
		id, string(by), providerID, string(why.Reason), why.Message)
	if err != nil {
		return pipeline.Machine{}, err
	}

	return decodeMachine(asString(reply[0]))
}

// ListMachines implements [pipeline.PoolStore].
func (s *Store) ListMachines(ctx context.Context) ([]pipeline.Machine, error) {
	raws, err := s.client.HVals(ctx, s.keys.machines).Result()
	if err != nil {
		return nil, failed("list machines", err)
	}

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
func (s *Store) LoseMachine(ctx context.Context, id string) error {
	_, err := s.call(ctx, "lose_machine", []string{s.keys.machineWorkers(id)},
		id, string(pipeline.ReasonWorkerLost), "The worker's machine is gone.")

	return err
}

// PoolStats implements [pipeline.PoolStore].
func (s *Store) PoolStats(ctx context.Context) (pipeline.PoolStats, error) {
	reply, err := s.callRows(ctx, 4, "pool_stats", nil)
	if err != nil {
		return pipeline.PoolStats{}, err
	}

	return pipeline.PoolStats{
		ReadyTasks: asInt(reply[0]), LeasedTasks: asInt(reply[1]), DelayedTasks: asInt(reply[2]),
		OldestReady: time.Duration(asInt(reply[3])) * time.Millisecond,
	}, nil
}
