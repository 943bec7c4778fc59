package redisstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// maxEvents is how many events of a job are told at most, the newest.
const maxEvents = 1000

// CreateJob implements [pipeline.JobStore].
func (s *Store) CreateJob(
	ctx context.Context, j pipeline.Job, first pipeline.NewTask, a pipeline.Admission,
) (pipeline.Job, error) {
	spec, err := encodeSpec(j)
	if err != nil {
		return pipeline.Job{}, err
	}

	front, err := encodeNew(j, first)
	if err != nil {
		return pipeline.Job{}, err
	}

	var (
		key string
		ttl int64
	)

	if a.IdempotencyKey != "" {
		key, ttl = s.keys.idempotency("job", j.Project, a.IdempotencyKey), millis(max(a.KeyTTL, time.Millisecond))
	}

	reply, err := s.callRows(ctx, 1, "create_job", nil, j.ID, j.Project, j.Priority, a.WaitingLimit, spec, front,
		j.Source.UploadID, key, a.Fingerprint, ttl)
	if err != nil {
		return pipeline.Job{}, err
	}

	if len(reply) > 1 {
		return s.GetJob(ctx, asString(reply[1]))
	}

	at := asTime(reply[0])

	return pipeline.Job{
		ID: j.ID, Project: j.Project, State: pipeline.JobPending, Spec: j.Spec, Source: j.Source, Priority: j.Priority,
		Labels: j.Labels, Times: pipeline.JobTimes{Created: at, Queued: at}, Run: 1, Sequence: 2,
	}, nil
}

// GetJob implements [pipeline.JobStore].
func (s *Store) GetJob(ctx context.Context, id string) (pipeline.Job, error) {
	k := []string{s.keys.job(id), s.keys.spec(id), s.keys.probe(id), s.keys.plan(id), s.keys.outputs(id), s.keys.stream(id)}

	reply, err := s.callRows(ctx, 12, "get_job", k, id)
	if err != nil {
		return pipeline.Job{}, err
	}

	j, err := decodePacked(id, asString(reply[0]))
	if err != nil {
		return pipeline.Job{}, err
	}

	if err := errors.Join(j.add(asString(reply[3]), asString(reply[1]), asString(reply[2])),
		decodeResults(&j.Job, asString(reply[4]), asString(reply[5]), asString(reply[6]))); err != nil {
		return pipeline.Job{}, err
	}

	raws := asList(reply[7])
	for i := 0; i+2 < len(raws); i += 3 {
		if i > 0 && asString(raws[i]) == "" {
			continue // its record is gone
		}

		t, err := decodeTask(&j, i/3, asString(raws[i]), asString(raws[i+1]), asString(raws[i+2]))
		if err != nil {
			return pipeline.Job{}, err
		}

		j.Tasks = append(j.Tasks, t)
	}

	j.Wait, j.WaitPosition = pipeline.WaitReason(asString(reply[8])), asInt(reply[9])
	j.Streamed = asTime(reply[11])
	j.Progress.Renditions, err = decodeShown(asString(reply[10]))

	return j.Job, err
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
	more := make([]*redis.SliceCmd, len(ids))
	texts := make([]*redis.SliceCmd, len(ids))

	for i, v := range ids {
		id := asString(v)
		more[i] = pipe.HMGet(ctx, s.keys.more(id), "f", "sr")
		texts[i] = pipe.MGet(ctx, s.keys.job(id), s.keys.spec(id), s.keys.probe(id), s.keys.plan(id), s.keys.summary(id))
	}

	if _, err := pipe.Exec(ctx); err != nil {
		return nil, failed("read jobs", err)
	}

	jobs := make([]pipeline.Job, 0, len(ids))

	for i, v := range ids {
		more, text := more[i].Val(), texts[i].Val()
		if text[0] == nil {
			continue
		}

		j, err := decodePacked(asString(v), asString(text[0]))
		if err != nil {
			return nil, err
		}

		if err := errors.Join(j.add(asString(text[1]), asString(more[0]), asString(more[1])),
			decodeResults(&j.Job, asString(text[2]), asString(text[3]), asString(text[4]))); err != nil {
			return nil, err
		}

		jobs = append(jobs, j.Job)
	}

	return s.readOutputs(ctx, jobs)
}

// readOutputs adds to jobs the outputs that have so few objects that they aren't apart without these, and leaves out jobs
// that have gone meanwhile. One whose outputs can't be read is listed without them; who gets it is told.
func (s *Store) readOutputs(ctx context.Context, jobs []pipeline.Job) ([]pipeline.Job, error) {
	var keys []string

	missing := func(j pipeline.Job) bool { return j.State == pipeline.JobCompleted && len(j.Outputs) == 0 }

	for _, j := range jobs {
		if missing(j) {
			keys = append(keys, s.keys.job(j.ID), s.keys.outputs(j.ID))
		}
	}

	if len(keys) == 0 {
		return jobs, nil
	}

	texts, err := s.client.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, failed("read outputs", err)
	}

	there := jobs[:0]

	for _, j := range jobs {
		if missing(j) {
			record, outputs := texts[0], texts[1]
			texts = texts[2:]

			if record == nil {
				continue
			}

			if decode(asString(outputs), &j.Outputs) != nil {
				j.Outputs = nil
			}

			withoutObjects(j.Outputs)
		}

		there = append(there, j)
	}

	return there, nil
}

// JobEvents implements [pipeline.JobStore].
func (s *Store) JobEvents(ctx context.Context, id string, after int64) ([]pipeline.Event, error) {
	reply, err := s.callRows(ctx, 1, "job_events", []string{s.keys.job(id)}, id, after)
	if err != nil {
		return nil, err
	}

	j, err := decodePacked(id, asString(reply[0]))
	if err != nil {
		return nil, err
	}

	events := []pipeline.Event{}

	for _, chunk := range reply[1:] {
		r := reader{raw: asString(chunk)}

		older, err := decodeEvents(id, r.uint(6), r.raw)
		if err != nil {
			return nil, err
		}

		events = append(events, older...)
	}

	newest, err := decodeEvents(id, j.base, j.events)
	if err != nil {
		return nil, err
	}

	after = max(after, j.Sequence-maxEvents)

	return slices.DeleteFunc(append(events, newest...), func(e pipeline.Event) bool { return e.Sequence <= after }), nil
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
	ctx context.Context, id string, expectRun int, first pipeline.NewTask, waitingLimit int,
) (pipeline.Job, error) {
	raw, weight, err := encodeFirst(first)
	if err != nil {
		return pipeline.Job{}, err
	}

	if _, err := s.call(ctx, "retry_job", []string{s.keys.job(id)}, id, expectRun, raw, weight,
		waitingLimit); err != nil {
		return pipeline.Job{}, err
	}

	return s.GetJob(ctx, id)
}

// DeleteJob implements [pipeline.JobStore].
func (s *Store) DeleteJob(ctx context.Context, id string) error {
	_, err := s.call(ctx, "delete_job",
		[]string{s.keys.job(id), s.keys.purges}, id)

	return err
}

// CompleteJob implements [pipeline.JobStore].
func (s *Store) CompleteJob(ctx context.Context, id string, run int, outputs []media.Output) (bool, error) {
	full, summary, err := encodeOutputs(outputs)
	if err != nil {
		return false, err
	}

	reply, err := s.callRows(ctx, 1, "complete_job", nil, id, run, full, summary)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}

// fewObjects is how many objects a list reads along, to leave them out.
const fewObjects = 8

// encodeOutputs renders the outputs of a job, and for lists, if they have more
// than few objects, the same without these.
func encodeOutputs(outputs []media.Output) (full, summary string, err error) {
	objects := 0
	for _, o := range outputs {
		objects += len(o.Objects)
	}

	full, err = encode(outputs)
	if err != nil || objects <= fewObjects {
		return full, "", err
	}

	summary, err = encode(withoutObjects(slices.Clone(outputs)))

	return full, summary, err
}

func withoutObjects(outputs []media.Output) []media.Output {
	for i := range outputs {
		outputs[i].Objects = nil
	}

	return outputs
}
