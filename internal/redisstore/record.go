package redisstore

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// jobSpec is the half of a job that never changes.
type jobSpec struct {
	Project string            `json:"p"`
	Spec    media.Spec        `json:"s,omitzero"`
	Source  pipeline.Source   `json:"o"`
	Labels  map[string]string `json:"l,omitempty"`
}

// uploadSpec is the half of an upload that never changes.
type uploadSpec struct {
	Filename      string `json:"f,omitempty"`
	SizeBytes     int64  `json:"s"`
	ContentType   string `json:"t,omitempty"`
	ObjectKey     string `json:"k"`
	MultipartID   string `json:"m,omitempty"`
	PartSizeBytes int64  `json:"ps,omitempty"`
	PartCount     int    `json:"pc,omitempty"`
}

// task is what a task is; see lua/include/task.lua.
type task struct {
	Kind   pipeline.TaskKind `json:"k"`
	Output string            `json:"o,omitempty"`
	Part   int               `json:"p,omitempty"`
	Weight float64           `json:"w,omitempty"`
}

// attempt is an ended attempt as Lua keeps it.
type attempt struct {
	Number   int              `json:"n"`
	WorkerID string           `json:"by"`
	Started  int64            `json:"at"`
	Ended    int64            `json:"to"`
	Outcome  pipeline.Outcome `json:"oc"`
	Reason   pipeline.Reason  `json:"rs"`
	Message  string           `json:"ms"`
	Charged  bool             `json:"ch"`
}

// encodeTasks renders new tasks for Lua: each as what it is, its weight, how
// many it waits for, and which wait for it.
func encodeTasks(tasks []pipeline.NewTask) ([]any, error) {
	followers := make([][]string, len(tasks))

	for i, t := range tasks {
		for _, before := range t.After {
			if before < 0 || before >= i {
				return nil, internalError("encode tasks", errors.New("a task can only wait for those before it"))
			}

			followers[before] = append(followers[before], strconv.Itoa(i))
		}
	}

	values := make([]any, 0, 4*len(tasks))

	for i, t := range tasks {
		raw, weight, err := encodeFirst(t)
		if err != nil {
			return nil, err
		}

		values = append(values, raw, weight, len(t.After), strings.Join(followers[i], " "))
	}

	return values, nil
}

// encodeFirst renders a task that waits for no other: what it is, and its weight.
func encodeFirst(t pipeline.NewTask) (raw, weight string, err error) {
	weight = floatText(max(0, t.Weight))
	raw, err = encode(task{Kind: t.Kind, Output: t.Output, Part: t.Part, Weight: t.Weight})

	return raw, weight, err
}

// fields splits a line into n fields; those that are missing are empty.
func fields(line string, n int) []string {
	f := strings.SplitN(line, " ", n)

	return append(f, make([]string, n-len(f))...)
}

// encodeProgress renders progress without its percent: media time, speed, fps, time left.
func encodeProgress(p pipeline.Progress) string {
	return strconv.FormatInt(int64(p.MediaTime), 10) + " " + floatText(p.Speed) + " " + floatText(p.FPS) + " " +
		strconv.FormatInt(int64(p.ETA), 10)
}

func decodeProgress(raw string) pipeline.Progress {
	f := fields(raw, 4)

	return pipeline.Progress{
		MediaTime: time.Duration(asInt(f[0])), Speed: asFloat(f[1]), FPS: asFloat(f[2]), ETA: time.Duration(asInt(f[3])),
	}
}

func floatText(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// decodeTask reads a task from what it is, its state and its ended attempts
// (see lua/include/task.lua), and its result.
func decodeTask(jobID string, index int, parts []any, rawResult string) (pipeline.Task, error) {
	var (
		r     task
		ended []attempt
	)

	if err := errors.Join(decode(asString(parts[0]), &r), decode(asString(parts[2]), &ended)); err != nil {
		return pipeline.Task{}, err
	}

	f := fields(asString(parts[1]), 15)
	t := pipeline.Task{
		ID: taskID(jobID, index), JobID: jobID, Run: int(asInt(f[3])), Kind: r.Kind, State: pipeline.TaskState(f[0]),
		Output: r.Output, Part: r.Part, Weight: r.Weight,
	}

	for _, a := range ended {
		t.Attempts = append(t.Attempts, pipeline.Attempt{
			Number: a.Number, WorkerID: a.WorkerID, Started: asTime(a.Started), Ended: asTime(a.Ended),
			Outcome: a.Outcome, Failure: failure(a.Reason, a.Message), Charged: a.Charged,
		})
	}

	newest := pipeline.Attempt{Number: int(asInt(f[4])), WorkerID: f[14], Started: asTime(f[5])}

	switch t.State {
	case pipeline.TaskLeased:
		t.Attempts = append(t.Attempts, newest)
	case pipeline.TaskDone:
		newest.Outcome, newest.Ended = pipeline.OutcomeDone, asTime(f[2])
		t.Attempts = append(t.Attempts, newest)
	case pipeline.TaskDelayed:
		t.NotBefore = asTime(f[5])
	case pipeline.TaskBlocked, pipeline.TaskReady, pipeline.TaskDead, pipeline.TaskCanceled:
	}

	if rawResult != "" {
		t.Result = new(media.EncodeResult)
		if err := decode(rawResult, t.Result); err != nil {
			return pipeline.Task{}, err
		}
	}

	return t, nil
}

func failure(reason pipeline.Reason, message string) *pipeline.Failure {
	if reason == "" {
		return nil
	}

	return &pipeline.Failure{Reason: reason, Message: message}
}

// jobFields are the fields of a job row, in the order of job_row in lua/include/job.lua.
func jobFields() []string { return []string{"h", "p", "ti", "g", "pg", "f", "sr"} }

// decodeJob reads a job from its row and its spec.
func decodeJob(id string, row []any, rawSpec string) (pipeline.Job, error) {
	if len(row) < len(jobFields()) {
		return pipeline.Job{}, internalError("read a job", strconv.ErrRange)
	}

	head, gauge := fields(asString(row[0]), 10), fields(asString(row[3]), 3)
	j := pipeline.Job{
		ID: id, State: pipeline.JobState(head[0]), Project: asString(row[1]), Priority: int(asInt(head[8])),
		Run: int(asInt(head[1])), Sequence: asInt(head[2]), Times: decodeTimes(asString(row[2])),
	}
	var spec jobSpec

	err := decode(rawSpec, &spec)
	if raw := asString(row[5]); raw != "" {
		j.Failure = new(pipeline.Failure)
		err = errors.Join(err, decode(raw, j.Failure))
	}

	if err != nil {
		return pipeline.Job{}, err
	}

	j.Spec, j.Source, j.Labels = spec.Spec, spec.Source, spec.Labels

	j.Progress = decodeProgress(asString(row[4]))
	j.Progress.Percent = asFloat(gauge[2])
	if j.State == pipeline.JobCompleted {
		j.Progress.Percent = 100
	}

	if j.State.Terminal() {
		j.Progress.ETA = 0
	}

	if size, etag, found := strings.Cut(asString(row[6]), " "); found {
		j.Source.SizeBytes, j.Source.ETag = asInt(size), etag
	}

	return j, nil
}

// decodeTimes reads the times of a job: a letter and milliseconds each.
func decodeTimes(raw string) pipeline.JobTimes {
	var t pipeline.JobTimes

	for f := range strings.FieldsSeq(raw) {
		at := asTime(f[1:])

		switch f[0] {
		case 'c':
			t.Created = at
		case 'q':
			t.Queued = at
		case 's':
			t.Started = at
		case 'p':
			t.Planned = at
		case 'y':
			t.Playable = at
		case 'f':
			t.Finished = at
		}
	}

	return t
}

// decodeResults adds probe and plan to a job, and outputs from one of their two forms.
func decodeResults(j *pipeline.Job, probe, plan, outputs string) error {
	if probe != "" {
		j.Probe = new(media.Probe)
	}

	if plan != "" {
		j.Plan = new(media.Plan)
	}

	return errors.Join(decode(probe, j.Probe), decode(plan, j.Plan), decode(outputs, &j.Outputs))
}

// decodeEvent reads an event: type, ms, task index, attempt, reason, message, as far as there are.
func decodeEvent(jobID string, sequence int64, raw string) pipeline.Event {
	f := strings.SplitN(raw, " ", 6)
	f = append(f, make([]string, 6-len(f))...)

	e := pipeline.Event{Sequence: sequence, Type: pipeline.EventType(f[0]), At: asTime(f[1]), JobID: jobID}
	if f[2] != "" && f[2] != "-" {
		e.TaskID, e.Attempt = taskID(jobID, int(asInt(f[2]))), int(asInt(f[3]))
	}

	e.Failure = failure(pipeline.Reason(f[4]), f[5])

	return e
}

func decodeUpload(id string, row []any) (pipeline.Upload, error) {
	if len(row) < 6 || row[0] == nil {
		return pipeline.Upload{}, refusal(pipeline.ReasonUploadNotFound)
	}

	var spec uploadSpec
	if err := decode(asString(row[3]), &spec); err != nil {
		return pipeline.Upload{}, err
	}

	return pipeline.Upload{
		ID: id, State: pipeline.UploadState(asString(row[0])), JobID: asString(row[1]), Project: asString(row[2]),
		Filename: spec.Filename, SizeBytes: spec.SizeBytes, ContentType: spec.ContentType, ObjectKey: spec.ObjectKey,
		MultipartID: spec.MultipartID, PartSizeBytes: spec.PartSizeBytes, PartCount: spec.PartCount,
		Created: asTime(row[4]), Expires: asTime(row[5]),
	}, nil
}

// millis is a duration for a script, rounded up so that a positive one stays so.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
