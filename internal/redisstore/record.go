package redisstore

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

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

// task is the definition of a task; see lua/include/record.lua.
type task struct {
	Kind   pipeline.TaskKind `json:"k"`
	Output string            `json:"o,omitempty"`
	Part   int               `json:"p,omitempty"`
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
	raw, err = encode(task{Kind: t.Kind, Output: t.Output, Part: t.Part})

	return raw, weight, err
}

// encodeNew packs a job that waits with its first task, up to when it was
// created: what follows is the script's, see lua/create_job.lua.
func encodeNew(j pipeline.Job, first pipeline.NewTask) (string, error) {
	definition, weight, err := encodeFirst(first)
	if err != nil {
		return "", err
	}

	uploaded := 0
	if j.Source.UploadID != "" {
		uploaded = 1
	}

	share := int(math.Float64bits(weight))
	b := append([]byte{byte(len(j.Project))}, j.Project...)

	b = appendFields(b,
		1, 0, // progress
		1, slices.Index(jobStates(), pipeline.JobPending), 2, 1, // state, run
		4, 2, 4, 0, 3, 1, // sequence (two events follow), base, open
		5, 0, 1, 0, 1, 0, 1, uploaded, // lease, left, stream, uploaded
		6, 0, 6, 0, 6, 0, // started, playable, finished
		8, share, 8, 0, 8, 0, // weight, done, percent
		1, slices.Index(taskStates(), pipeline.TaskReady), 1, 0, 3, 0, 6, 0, // state, last, attempt, began
		8, share, 8, 0, 6, 0, // share, told, kept
		1, 0, 1, 0, // follow, worker
		2, 1, 2, 0, 2, 0, 1, 0, 3, 0, // run, charged, losses, spoilt, waits
		2, len(definition))
	b = append(b, definition...)

	return string(appendFields(b, 3, 1, 3, 0, 2, j.Priority)), nil // tasks, first of the run
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
	if raw == "" {
		return pipeline.Progress{}
	}

	f := fields(raw, 4)

	return pipeline.Progress{
		MediaTime: time.Duration(asInt(f[0])), Speed: asFloat(f[1]), FPS: asFloat(f[2]), ETA: time.Duration(asInt(f[3])),
	}
}

func floatText(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// jobStates and taskStates are the states in the order of their numbers in lua/include/record.lua.
func jobStates() []pipeline.JobState {
	return []pipeline.JobState{
		"", pipeline.JobUploading, pipeline.JobPending, pipeline.JobRunning, pipeline.JobCompleted, pipeline.JobFailed,
		pipeline.JobCanceled,
	}
}

func taskStates() []pipeline.TaskState {
	return []pipeline.TaskState{
		"", pipeline.TaskBlocked, pipeline.TaskReady, pipeline.TaskLeased, pipeline.TaskDelayed, pipeline.TaskDone,
		pipeline.TaskDead, pipeline.TaskCanceled,
	}
}

// numbered is a name by its number, the zero one if there is none.
func numbered[T any](names []T, number int) T {
	if number >= len(names) {
		number = 0
	}

	return names[number]
}

// packedTask is what is read of a task as it is packed; see lua/include/record.lua.
type packedTask struct {
	state      pipeline.TaskState
	number     int // of the newest attempt
	at         time.Time
	weight     float64
	told       float64
	kept       time.Time
	by         string
	run        int
	definition string
}

func readTask(r *reader) packedTask {
	t := packedTask{state: numbered(taskStates(), r.int(1))}

	r.skip(1)

	t.number, t.at, t.weight, t.told, t.kept = r.int(3), r.time(), r.float(), r.float(), r.time()

	r.skip(1)

	t.by, t.run = r.text(1), r.int(2)

	r.skip(2 + 2 + 1 + 3)

	t.definition = r.text(2)

	return t
}

// decodeTask reads a task that isn't the first of its job, or takes that, with
// its ended attempts and its result.
func decodeTask(j *packedJob, index int, packed, rawEnded, rawResult string) (pipeline.Task, error) {
	p, r := j.first, reader{raw: packed}
	if index > 0 {
		p = readTask(&r)
	}

	t := pipeline.Task{ID: taskID(j.ID, index), JobID: j.ID, State: p.state, Run: p.run, Weight: p.weight, Fraction: p.told}
	newest := pipeline.Attempt{Number: p.number, WorkerID: p.by}

	var (
		d        task
		attempts []attempt
	)

	if err := errors.Join(r.finish("a task"), decode(p.definition, &d), decode(rawEnded, &attempts)); err != nil {
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
		newest.Started = p.at
		t.Attempts = append(t.Attempts, newest)
	case pipeline.TaskDone:
		newest.Started, newest.Outcome, newest.Ended = p.at, pipeline.OutcomeDone, p.kept
		t.Attempts = append(t.Attempts, newest)
	case pipeline.TaskDelayed:
		t.NotBefore = p.at
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

	first  packedTask
	base   int64 // the sequence before the events behind it
	events string
}

// decodePacked reads a job as it is packed; see lua/include/record.lua.
func decodePacked(id, packed string) (packedJob, error) {
	r := reader{raw: packed}
	j := packedJob{Job: pipeline.Job{ID: id, Project: r.text(1), Progress: decodeProgress(r.text(1))}}
	j.State, j.Run, j.Sequence, j.base = numbered(jobStates(), r.int(1)), r.int(2), r.uint(4), r.uint(4)

	r.skip(3 + 5 + 1 + 1 + 1)

	j.Times.Started, j.Times.Playable, j.Times.Finished = r.time(), r.time(), r.time()

	weight, done, percent := r.float(), r.float(), r.float()

	j.Progress.Percent = percent
	if weight > 0 {
		j.Progress.Share = 100 * max(0, done) / weight
	}

	j.first = readTask(&r)

	r.skip(3 + 3)

	j.Priority = r.signed16()
	j.Times.Created, j.Times.Queued, j.Times.Planned = r.time(), r.time(), r.time()
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
	err := decodeSpec(&j.Job, rawSpec)

	if rawFailure != "" {
		j.Failure = new(pipeline.Failure)
		err = errors.Join(err, decode(rawFailure, j.Failure))
	}

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

// eventTypes are the types of events in the order of their numbers in lua/include/record.lua.
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

	const ofTask, withText, flags = 64, 128, 192 // of the type

	types, r := eventTypes(), reader{raw: packed}

	for r.more() {
		behind++

		kind := r.int(1)
		e := pipeline.Event{Sequence: behind, JobID: jobID, Type: numbered(types, kind&^flags), At: r.time()}

		if kind&ofTask != 0 {
			if index, attempt := r.int(3), r.int(3); index > 0 {
				e.TaskID, e.Attempt = taskID(jobID, index-1), attempt
			}
		}

		if kind&withText != 0 {
			reason, message, _ := strings.Cut(r.text(3), " ")
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
