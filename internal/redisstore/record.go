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

// task is the definition of a task; see lua/include/task.lua.
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
func encodeFirst(t pipeline.NewTask) (raw string, weight float64, err error) {
	weight = max(0, t.Weight)
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

// decodeTask reads a task as it is packed (see lua/include/task.lua), its ended
// attempts and its result.
func decodeTask(jobID string, index int, packed, rawEnded, rawResult string) (pipeline.Task, error) {
	r := reader{raw: packed}
	t := pipeline.Task{ID: taskID(jobID, index), JobID: jobID, State: pipeline.TaskState(r.text(1))}

	r.skip(1)

	ended := r.time()
	t.Run = r.int(2)
	newest := pipeline.Attempt{Number: r.int(3)}
	at := r.time()

	r.skip(2 + 2 + 2 + 3)

	t.Weight = r.float()

	r.skip(8 + 6 + 1)

	newest.WorkerID = r.text(1)
	definition := r.text(2)

	var (
		d        task
		attempts []attempt
	)

	if err := errors.Join(r.finish("a task"), decode(definition, &d), decode(rawEnded, &attempts)); err != nil {
		return pipeline.Task{}, err
	}

	t.Kind, t.Output, t.Part = d.Kind, d.Output, d.Part

	for _, a := range attempts {
		t.Attempts = append(t.Attempts, pipeline.Attempt{
			Number: a.Number, WorkerID: a.WorkerID, Started: asTime(a.Started), Ended: asTime(a.Ended),
			Outcome: a.Outcome, Failure: failure(a.Reason, a.Message), Charged: a.Charged,
		})
	}

	switch t.State {
	case pipeline.TaskLeased:
		newest.Started = at
		t.Attempts = append(t.Attempts, newest)
	case pipeline.TaskDone:
		newest.Started, newest.Outcome, newest.Ended = at, pipeline.OutcomeDone, ended
		t.Attempts = append(t.Attempts, newest)
	case pipeline.TaskDelayed:
		t.NotBefore = at
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

// packedJob is a job as it is packed, with what it is packed with.
type packedJob struct {
	pipeline.Job

	first  string // its first task
	base   int64  // the sequence before the events behind it
	events string
}

// decodePacked reads a job as it is packed; see lua/include/job.lua.
func decodePacked(id, packed string) (packedJob, error) {
	r := reader{raw: packed}
	j := packedJob{Job: pipeline.Job{ID: id, State: pipeline.JobState(r.text(1)), Run: r.int(2), Sequence: r.uint(4)}}
	j.base = r.uint(4)

	r.skip(4 + 6 + 1 + 4 + 4)

	j.Priority = r.signed16()

	r.skip(1)

	j.Project = r.text(2)

	r.skip(8 + 8)

	percent := r.float()
	j.Times = pipeline.JobTimes{Created: r.time(), Queued: r.time(), Started: r.time(), Planned: r.time(), Playable: r.time(), Finished: r.time()}
	j.Progress = decodeProgress(r.text(1))
	j.Progress.Percent = percent
	j.first = r.text(2)
	j.events = r.raw

	if j.State == pipeline.JobCompleted {
		j.Progress.Percent = 100
	}

	if j.State.Terminal() {
		j.Progress.ETA = 0
	}

	return j, r.finish("a job")
}

// add adds to a job what isn't packed with it: its spec, its failure,
// and the size and etag of its source.
func (j *packedJob) add(rawSpec, rawFailure, rawSource string) error {
	var spec jobSpec

	err := decode(rawSpec, &spec)

	if rawFailure != "" {
		j.Failure = new(pipeline.Failure)
		err = errors.Join(err, decode(rawFailure, j.Failure))
	}

	j.Spec, j.Source, j.Labels = spec.Spec, spec.Source, spec.Labels

	if size, etag, found := strings.Cut(rawSource, " "); found {
		j.Source.SizeBytes, j.Source.ETag = asInt(size), etag
	}

	return err
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

// eventTypes are the types of events in the order of their numbers in lua/include/job.lua.
func eventTypes() []pipeline.EventType {
	return []pipeline.EventType{
		"", pipeline.EventCreated, pipeline.EventQueued, pipeline.EventStarted, pipeline.EventPlanned, pipeline.EventPlayable,
		pipeline.EventCompleted, pipeline.EventFailed, pipeline.EventCanceled, pipeline.EventRetried,
		pipeline.EventTaskLeased, pipeline.EventTaskDone, pipeline.EventTaskDelayed, pipeline.EventTaskDead,
	}
}

// decodeEvents reads packed events, those behind a sequence.
func decodeEvents(jobID string, behind int64, packed string) ([]pipeline.Event, error) {
	var events []pipeline.Event

	types, r := eventTypes(), reader{raw: packed}

	for r.more() {
		behind++

		e := pipeline.Event{Sequence: behind, JobID: jobID}
		if kind := r.int(1); kind < len(types) {
			e.Type = types[kind]
		}

		e.At = r.time()

		if index, attempt := r.int(3), r.int(3); index > 0 {
			e.TaskID, e.Attempt = taskID(jobID, index-1), attempt
		}

		if text := r.text(3); text != "" {
			reason, message, _ := strings.Cut(text, " ")
			e.Failure = failure(pipeline.Reason(reason), message)
		}

		events = append(events, e)
	}

	return events, r.finish("events")
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
