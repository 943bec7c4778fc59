package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// AttachWorker implements [pipeline.PoolStore].
func (s *Store) AttachWorker(
	ctx context.Context, w pipeline.Worker, lease time.Duration,
) (int64, []pipeline.Lease, error) {
	encoders, err := encode(w.Encoders)
	if err != nil {
		return 0, nil, err
	}

	k := []string{s.keys.worker(w.ID), s.keys.sessions, s.keys.machines}
	if w.MachineID != "" {
		k = append(k, s.keys.machineWorkers(w.MachineID))
	}

	args := make([]any, 0, 10+2*len(w.Held))
	args = append(args, w.ID, w.MachineID, w.Version, w.Slots, w.CPUs, encoders, digit(w.Draining), millis(lease),
		string(pipeline.ReasonWorkerLost), "The worker doesn't hold the task that it was given.")

	for _, ref := range w.Held {
		args = append(args, memberOf(ref), ref.Attempt)
	}

	reply, err := s.callRows(ctx, 1, "attach_worker", k, args...)
	if err != nil {
		return 0, nil, err
	}

	kept, err := s.readLeases(ctx, reply[1:])

	return asInt(reply[0]), kept, err
}

// DetachWorker implements [pipeline.PoolStore].
func (s *Store) DetachWorker(ctx context.Context, id string, session int64, gone bool) error {
	_, err := s.call(ctx, "detach_worker", []string{s.keys.worker(id)}, id, session, digit(gone))

	return err
}

// DrainWorker implements [pipeline.PoolStore].
func (s *Store) DrainWorker(ctx context.Context, id string) (pipeline.Worker, error) {
	if _, err := s.call(ctx, "drain_worker", nil, id); err != nil {
		return pipeline.Worker{}, err
	}

	workers, err := s.readWorkers(ctx, id)
	if err != nil {
		return pipeline.Worker{}, err
	}

	if len(workers) == 0 {
		return pipeline.Worker{}, refusal(pipeline.ReasonWorkerNotFound)
	}

	return workers[0], nil
}

// LeaveWorker implements [pipeline.PoolStore].
func (s *Store) LeaveWorker(ctx context.Context, id string, session int64, minWarm int) (bool, error) {
	reply, err := s.callRows(ctx, 1, "leave_worker", nil, id, session, minWarm)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}

// ListWorkers implements [pipeline.PoolStore].
func (s *Store) ListWorkers(ctx context.Context) ([]pipeline.Worker, error) {
	return s.readWorkers(ctx, "")
}

// readWorkers reads the workers that were seen lately, or one, by id.
func (s *Store) readWorkers(ctx context.Context, id string) ([]pipeline.Worker, error) {
	reply, err := s.call(ctx, "list_workers", nil, id)
	if err != nil {
		return nil, err
	}

	return decodeWorkers(reply)
}

// decodeWorkers reads rows of lua/include/roster.lua, and sorts them by id.
func decodeWorkers(rows []any) ([]pipeline.Worker, error) {
	workers := make([]pipeline.Worker, 0, len(rows))

	for _, v := range rows {
		row := asList(v)
		if len(row) < 4 {
			return nil, internalError("read workers", strconv.ErrRange)
		}

		r := asList(row[2])
		if len(r) < 7 {
			return nil, internalError("read workers", strconv.ErrRange)
		}

		state := fields(asString(r[6]), 3)
		w := pipeline.Worker{
			ID: asString(row[0]), LastSeen: asTime(row[1]), MachineID: asString(r[0]), Version: asString(r[1]),
			Slots: int(asInt(r[2])), CPUs: int(asInt(r[3])), FirstSeen: asTime(r[5]),
			Session: asInt(state[0]), Draining: state[1] == "1", Attached: state[2] == "1",
		}

		if err := decode(asString(r[4]), &w.Encoders); err != nil {
			return nil, err
		}

		held := asList(row[3])
		for i := 0; i+1 < len(held); i += 2 {
			job, index, _ := splitTaskID(asString(held[i]))
			w.Held = append(w.Held, pipeline.LeaseRef{TaskID: taskID(job, index), Attempt: int(asInt(held[i+1]))})
		}

		workers = append(workers, w)
	}

	slices.SortFunc(workers, func(a, b pipeline.Worker) int { return strings.Compare(a.ID, b.ID) })

	return workers, nil
}

func digit(b bool) string {
	if b {
		return "1"
	}

	return "0"
}
