package redisstore

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// PoolStats implements [pipeline.PoolStore].
func (s *Store) PoolStats(ctx context.Context) (pipeline.PoolStats, error) {
	reply, err := s.callRows(ctx, 5, "pool_stats", nil)
	if err != nil {
		return pipeline.PoolStats{}, err
	}

	return decodeStats(reply), nil
}

func decodeStats(reply []any) pipeline.PoolStats {
	return pipeline.PoolStats{
		ReadyTasks: asInt(reply[0]), LeasedTasks: asInt(reply[1]), DelayedTasks: asInt(reply[2]),
		OldestReady: time.Duration(asInt(reply[3])) * time.Millisecond, LimitedTasks: asInt(reply[4]),
	}
}

// ReadPool implements [pipeline.PoolStore].
func (s *Store) ReadPool(ctx context.Context) (pipeline.PoolView, error) {
	reply, err := s.callRows(ctx, 16, "read_pool", []string{s.keys.machines, s.keys.pool})
	if err != nil {
		return pipeline.PoolView{}, err
	}

	v := pipeline.PoolView{
		Stats: decodeStats(reply), JobWeight: asFloat(reply[10]), Version: asInt(reply[12]), Term: asInt(reply[14]),
		Now: asTime(reply[15]),
	}
	v.Waiting = decodeWork(asList(reply[7]), v.Stats.ReadyTasks)
	v.Running = decodeWork(asList(reply[8]), v.Stats.LeasedTasks)

	if done := asList(reply[9]); len(done) == 2 {
		v.Done, v.Took = asFloat(done[0]), time.Duration(asFloat(done[1])*float64(time.Millisecond))
	}

	raws := asList(reply[5])
	machines := make([]string, 0, len(raws))

	for _, raw := range raws {
		machines = append(machines, asString(raw))
	}

	if v.Machines, err = decodeMachines(machines); err != nil {
		return pipeline.PoolView{}, err
	}

	if v.Workers, err = decodeWorkers(asList(reply[6])); err != nil {
		return pipeline.PoolView{}, err
	}

	if err := decode(asString(reply[11]), &v.Change); err != nil {
		return pipeline.PoolView{}, err
	}

	return v, decode(asString(reply[13]), &v.Report)
}

// decodeWork reads the work of some tasks, which stand for all.
func decodeWork(row []any, tasks int64) pipeline.Work {
	if len(row) < 6 || asInt(row[0]) == 0 {
		return pipeline.Work{}
	}

	scale := max(1, float64(tasks)/asFloat(row[0]))
	many := func(v any) int { return int(asFloat(v)*scale + 0.5) }

	return pipeline.Work{
		Probes: many(row[1]), Encodes: many(row[2]), EncodeWeight: asFloat(row[3]) * scale,
		Lights: many(row[4]), LightWeight: asFloat(row[5]) * scale,
	}
}

// ChangePool implements [pipeline.PoolStore].
func (s *Store) ChangePool(ctx context.Context, c pipeline.PoolChange, version int64) (bool, error) {
	raw, err := encode(c)
	if err != nil {
		return false, err
	}

	reply, err := s.callRows(ctx, 1, "change_pool", []string{s.keys.pool}, raw, version)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}

// ReportPool implements [pipeline.PoolStore].
func (s *Store) ReportPool(ctx context.Context, r pipeline.PoolReport, term int64) error {
	raw, err := encode(r)
	if err != nil {
		return err
	}

	_, err = s.call(ctx, "report_pool", []string{s.keys.pool}, raw, term)

	return err
}

// TakeTurn implements [pipeline.PoolStore].
func (s *Store) TakeTurn(ctx context.Context, name string, p pipeline.Pace, most time.Duration) (time.Duration, bool, error) {
	reply, err := s.call(ctx, "take_turn", []string{s.keys.turn(name)}, p.Every.Milliseconds(), p.Burst, most.Milliseconds())
	if err != nil || len(reply) == 0 {
		return 0, false, err
	}

	return time.Duration(asInt(reply[0])) * time.Millisecond, true, nil
}
