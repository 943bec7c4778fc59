package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// CreateJob implements [pipeline.JobStore].
func (s *Store) CreateJob(
	ctx context.Context, j pipeline.Job, first pipeline.NewTask, a pipeline.Admission,
) (pipeline.Job, error) {
	spec, err := encodeSpec(j)
	if err != nil {
		return pipeline.Job{}, err
	}

	raws, err := encodeTasks([]pipeline.NewTask{first})
	if err != nil {
		return pipeline.Job{}, err
	}

	k := []string{s.keys.job(j.ID), s.keys.spec(j.ID), s.keys.index(j.Project, pipeline.JobPending)}
	if a.IdempotencyKey != "" {
		k = append(k, s.keys.idempotency("job", j.Project, a.IdempotencyKey))
	}

	reply, err := s.callRows(ctx, 1, "create_job", k, j.ID, j.Project, j.Priority, spec, raws[0], a.Fingerprint,
		millis(max(a.KeyTTL, time.Millisecond)))
	if err != nil {
		return pipeline.Job{}, err
	}

	id := asString(reply[0])
	if len(reply) == 1 {
		return s.GetJob(ctx, id)
	}

	created, _, err := decodeJob(id, asList(reply[1]), spec)

	return created, err
}

// GetJob implements [pipeline.JobStore].
func (s *Store) GetJob(ctx context.Context, id string) (pipeline.Job, error) {
	reply, err := s.callRows(ctx, 6, "get_job", []string{s.keys.job(id), s.keys.spec(id), s.keys.results(id)}, id)
	if err != nil {
		return pipeline.Job{}, err
	}

	j, ok, err := decodeJob(id, asList(reply[0]), asString(reply[1]))
	if err != nil {
		return pipeline.Job{}, err
	}

	if !ok {
		return pipeline.Job{}, refusal(pipeline.ReasonJobNotFound)
	}

	results := asMap(reply[3])
	if err := decodeResults(&j, results["probe"], results["plan"], results["out"]); err != nil {
		return pipeline.Job{}, err
	}

	raws := asList(reply[2])
	for i := 0; i+1 < len(raws); i += 2 {
		index := i / 2

		t, err := decodeTask(id, index, asString(raws[i]), asString(raws[i+1]), results["r"+strconv.Itoa(index)])
		if err != nil {
			return pipeline.Job{}, err
		}

		j.Tasks = append(j.Tasks, t)
	}

	j.Wait, j.WaitPosition = pipeline.WaitReason(asString(reply[4])), asInt(reply[5])

	return j, nil
}

// ListJobs implements [pipeline.JobStore].
func (s *Store) ListJobs(ctx context.Context, f pipeline.JobFilter) ([]pipeline.Job, error) {
	states := f.States
	if len(states) == 0 {
		states = []pipeline.JobState{
			pipeline.JobUploading, pipeline.JobPending, pipeline.JobRunning,
			pipeline.JobCompleted, pipeline.JobFailed, pipeline.JobCanceled,
		}
	}

	indexes := make([]string, 0, len(states))
	for _, state := range states {
		indexes = append(indexes, s.keys.index(f.Project, state))
	}

	jobs := []pipeline.Job{}
	before := f.Before

	// A job can leave the filter between the two reads; the page is filled up then, so that a short one is the last.
	for len(jobs) < f.Limit {
		want := f.Limit - len(jobs)

		reply, err := s.call(ctx, "list_jobs", indexes, before, want)
		if err != nil {
			return nil, err
		}

		if len(reply) == 0 {
			break
		}

		page, err := s.readJobs(ctx, reply)
		if err != nil {
			return nil, err
		}

		for _, j := range page {
			if slices.Contains(states, j.State) {
				jobs = append(jobs, j)
			}
		}

		if len(reply) < want {
			break
		}

		before = asString(reply[len(reply)-1])
	}

	return jobs, nil
}

// readJobs reads the jobs of ids without their tasks; those that are gone are left out.
func (s *Store) readJobs(ctx context.Context, ids []any) ([]pipeline.Job, error) {
	pipe := s.client.Pipeline()
	specs := make([]string, len(ids))
	rows := make([]*redis.SliceCmd, len(ids))
	results := make([]*redis.SliceCmd, len(ids))

	for i, v := range ids {
		id := asString(v)
		specs[i] = s.keys.spec(id)
		rows[i] = pipe.HMGet(ctx, s.keys.job(id), jobFields()...)
		results[i] = pipe.HMGet(ctx, s.keys.results(id), "probe", "plan", "outs")
	}

	docs := pipe.MGet(ctx, specs...)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, failed("read jobs", err)
	}

	jobs := make([]pipeline.Job, 0, len(ids))

	for i, v := range ids {
		j, ok, err := decodeJob(asString(v), rows[i].Val(), asString(docs.Val()[i]))
		if err != nil {
			return nil, err
		}

		if !ok {
			continue
		}

		r := results[i].Val()
		if err := decodeResults(&j, asString(r[0]), asString(r[1]), asString(r[2])); err != nil {
			return nil, err
		}

		jobs = append(jobs, j)
	}

	return jobs, nil
}

// JobEvents implements [pipeline.JobStore].
func (s *Store) JobEvents(ctx context.Context, id string, after int64) ([]pipeline.Event, error) {
	reply, err := s.callRows(ctx, 1, "job_events", []string{s.keys.job(id)}, after)
	if err != nil {
		return nil, err
	}

	first := asInt(reply[0])
	events := make([]pipeline.Event, 0, len(reply)-1)

	for i, raw := range reply[1:] {
		events = append(events, decodeEvent(id, first+int64(i), asString(raw)))
	}

	return events, nil
}

// CancelJob implements [pipeline.JobStore].
func (s *Store) CancelJob(ctx context.Context, id string) (pipeline.Job, error) {
	if _, err := s.call(ctx, "cancel_job", []string{s.keys.job(id)}, id, "The job was canceled."); err != nil {
		return pipeline.Job{}, err
	}

	return s.GetJob(ctx, id)
}

// RetryJob implements [pipeline.JobStore].
func (s *Store) RetryJob(
	ctx context.Context, id string, expectRun int, first pipeline.NewTask, _ int,
) (pipeline.Job, error) {
	raws, err := encodeTasks([]pipeline.NewTask{first})
	if err != nil {
		return pipeline.Job{}, err
	}

	k := []string{s.keys.job(id), s.keys.results(id)}
	if _, err := s.call(ctx, "retry_job", k, id, expectRun, raws[0]); err != nil {
		return pipeline.Job{}, err
	}

	return s.GetJob(ctx, id)
}

// DeleteJob implements [pipeline.JobStore].
func (s *Store) DeleteJob(ctx context.Context, id string) error {
	_, err := s.call(ctx, "delete_job",
		[]string{s.keys.job(id), s.keys.spec(id), s.keys.results(id), s.keys.purges}, id)

	return err
}

// CompleteJob implements [pipeline.JobStore].
func (s *Store) CompleteJob(ctx context.Context, id string, run int, outputs []media.Output) (bool, error) {
	short := slices.Clone(outputs)
	for i := range short {
		short[i].Objects = nil
	}

	full, err := encode(outputs)
	summary, err2 := encode(short)

	if err := errors.Join(err, err2); err != nil {
		return false, err
	}

	reply, err := s.callRows(ctx, 1, "complete_job", []string{s.keys.job(id), s.keys.results(id)}, id, run, full, summary)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}
