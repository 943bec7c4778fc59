package redisstore

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// ClaimTasks implements [pipeline.LeaseStore].
func (s *Store) ClaimTasks(ctx context.Context, c pipeline.Claim) (pipeline.Claimed, error) {
	rows, err := s.callRows(ctx, 2, "claim_tasks", nil,
		c.WorkerID, strconv.FormatInt(c.Session, 10), c.Max, millis(c.Lease), c.RequestID, c.RunningLimit)
	if err != nil {
		return pipeline.Claimed{}, err
	}

	leases, err := s.readLeases(ctx, rows[2:])
	if err != nil {
		return pipeline.Claimed{}, err
	}

	return pipeline.Claimed{Leases: leases, More: asInt(rows[0]) == 1, Refused: asInt(rows[1]) == 1}, nil
}

// readLeases reads lease rows, as lua/include/lease.lua makes them. A job that
// can't be read is set aside, so that it isn't in the way of a worker's others.
func (s *Store) readLeases(ctx context.Context, rows []any) ([]pipeline.Lease, error) {
	leases := make([]pipeline.Lease, 0, len(rows))

	for _, v := range rows {
		row := asList(v)
		if len(row) < 4 {
			return nil, internalError("read leases", strconv.ErrRange)
		}

		for len(row) < 9 {
			row = append(row, "")
		}

		l, err := decodeLease(row)
		if err == nil {
			leases = append(leases, l)

			continue
		}

		id, _, _ := splitTaskID(asString(row[0]))
		spec := 0

		if decodeSpec(&pipeline.Job{}, asString(row[3])) != nil {
			spec = 1
		}

		k := []string{s.keys.job(id), s.keys.spec(id), s.keys.probe(id), s.keys.plan(id)}
		if _, err := s.call(ctx, "set_aside", k, id, spec); err != nil {
			return nil, err
		}
	}

	return leases, nil
}

func decodeLease(row []any) (pipeline.Lease, error) {
	id, index, _ := splitTaskID(asString(row[0]))

	j, err := decodePacked(id, asString(row[2]))
	if err != nil {
		return pipeline.Lease{}, err
	}

	t, err := decodeTask(&j, index, asString(row[4]), asString(row[5]), "")
	if err != nil {
		return pipeline.Lease{}, err
	}

	if err := errors.Join(j.add(asString(row[3]), "", asString(row[6])),
		decodeResults(&j.Job, asString(row[7]), asString(row[8]), "")); err != nil {
		return pipeline.Lease{}, err
	}

	if t.State != pipeline.TaskLeased {
		return pipeline.Lease{}, internalError("read leases", errors.New("a task isn't leased"))
	}

	ref := pipeline.LeaseRef{TaskID: t.ID, Attempt: t.Attempts[len(t.Attempts)-1].Number}

	return pipeline.Lease{Ref: ref, Task: t, Job: j.Job, Expires: asTime(row[1])}, nil
}

// RenewLeases implements [pipeline.LeaseStore].
func (s *Store) RenewLeases(
	ctx context.Context, workerID string, lease time.Duration, rs []pipeline.Renewal,
) (pipeline.Renewed, error) {
	leases := make([]any, 0, 3*len(rs))
	for _, r := range rs {
		leases = append(leases, leaseName(workerID, r.Ref), clamp(r.Fraction), encodeProgress(finite(r.Progress)))
	}

	reply, err := s.callRows(ctx, 1, "renew_leases", nil, workerID, millis(lease), leases)
	if err != nil {
		return pipeline.Renewed{}, err
	}

	renewed := pipeline.Renewed{Watched: asInt(reply[0]) == 1}
	for _, v := range reply[1:] {
		renewed.Lost = append(renewed.Lost, rs[asInt(v)].Ref)
	}

	return renewed, nil
}

// FinishTask implements [pipeline.LeaseStore].
func (s *Store) FinishTask(ctx context.Context, r pipeline.TaskResult) (pipeline.Verdict, bool, error) {
	job, index, ok := splitTaskID(r.Ref.TaskID)
	if !ok {
		return pipeline.VerdictStale, false, nil
	}

	args := []any{job, index, member(job, index), r.Ref.Attempt, r.WorkerID}

	for _, encoded := range []func() (string, error){
		func() (string, error) { return encodeOptional(r.Result) },
		func() (string, error) { return encodeOptional(r.Probe) },
		func() (string, error) { return encodeOptional(r.Plan) },
	} {
		raw, err := encoded()
		if err != nil {
			return "", false, err
		}

		args = append(args, raw)
	}

	tasks, err := encodeTasks(r.Tasks)
	if err != nil {
		return "", false, err
	}

	material := 0
	if r.Plan != nil && r.Plan.HasMaterial() {
		material = 1
	}

	var full, summary string
	if len(r.Outputs) > 0 {
		if full, summary, err = encodeOutputs(r.Outputs); err != nil {
			return "", false, err
		}
	}

	reply, err := s.callRows(ctx, 2, "finish_task", nil, append(args, tasks, material, full, summary)...)
	if err != nil {
		return "", false, err
	}

	return pipeline.Verdict(asString(reply[0])), asInt(reply[1]) == 1, nil
}

// FailTask implements [pipeline.LeaseStore].
func (s *Store) FailTask(ctx context.Context, f pipeline.TaskFault) (pipeline.Verdict, error) {
	factor := 1 + f.Retry.Jitter*(2*s.jitter()-1)

	return s.endAttempt(ctx, "fail_task", f.WorkerID, f.Ref, string(f.Class), string(f.Failure.Reason),
		f.Failure.Message, f.Retry.MaxFailures, millis(f.Retry.Backoff), millis(max(f.Retry.Backoff, f.Retry.MaxBackoff)),
		factor)
}

// ReleaseTask implements [pipeline.LeaseStore].
func (s *Store) ReleaseTask(ctx context.Context, workerID string, ref pipeline.LeaseRef) (pipeline.Verdict, error) {
	return s.endAttempt(ctx, "release_task", workerID, ref,
		string(pipeline.ReasonWorkerDrained), "The worker handed the task back.")
}

// endAttempt runs a script that ends an attempt without a result.
func (s *Store) endAttempt(
	ctx context.Context, verb, workerID string, ref pipeline.LeaseRef, args ...any,
) (pipeline.Verdict, error) {
	job, index, ok := splitTaskID(ref.TaskID)
	if !ok {
		return pipeline.VerdictStale, nil
	}

	reply, err := s.callRows(ctx, 1, verb, []string{s.keys.job(job)},
		append([]any{job, index, ref.Attempt, workerID}, args...)...)
	if err != nil {
		return "", err
	}

	return pipeline.Verdict(asString(reply[0])), nil
}

// clamp makes a fraction one, whatever a worker says.
func clamp(f float64) float64 {
	if math.IsNaN(f) {
		return 0
	}

	return min(1, max(0, f))
}

// finite makes progress encodable, whatever a worker says. The percent is the store's own.
func finite(p pipeline.Progress) pipeline.Progress {
	p.Percent = 0

	for _, f := range []*float64{&p.Speed, &p.FPS} {
		if math.IsNaN(*f) || math.IsInf(*f, 0) {
			*f = 0
		}
	}

	return p
}
