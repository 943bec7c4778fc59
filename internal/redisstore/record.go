package redisstore

import (
	"errors"
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

// task is a task as Lua keeps it; see lua/include/task.lua.
type task struct {
	Kind      pipeline.TaskKind  `json:"k"`
	State     pipeline.TaskState `json:"s,omitempty"`
	Run       int                `json:"r,omitempty"`
	Output    string             `json:"o,omitempty"`
	Part      int                `json:"p,omitempty"`
	Weight    float64            `json:"w,omitempty"`
	Attempt   int                `json:"n,omitempty"`
	WorkerID  string             `json:"by,omitempty"`
	Started   int64              `json:"at,omitempty"`
	NotBefore int64              `json:"nb,omitempty"`
	Waits     int                `json:"wt,omitempty"`
	Followers []int              `json:"nx,omitempty"`
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

// notice is the payload of a job's channel.
type notice struct {
	Sequence int64              `json:"q"`
	Percent  float64            `json:"c"`
	Progress *pipeline.Progress `json:"p"`
}

// encodeTasks renders new tasks for Lua: what each waits for becomes a count,
// and a list on those that it waits for.
func encodeTasks(tasks []pipeline.NewTask) ([]any, error) {
	records := make([]task, len(tasks))

	for i, t := range tasks {
		records[i].Kind, records[i].Output, records[i].Part, records[i].Weight = t.Kind, t.Output, t.Part, t.Weight

		for _, before := range t.After {
			if before < 0 || before >= i {
				return nil, internalError("encode tasks", errors.New("a task can only wait for those before it"))
			}

			records[i].Waits++
			records[before].Followers = append(records[before].Followers, i)
		}
	}

	raws := make([]any, len(tasks))

	for i, r := range records {
		raw, err := encode(r)
		if err != nil {
			return nil, err
		}

		raws[i] = raw
	}

	return raws, nil
}

// decodeTask reads a task from its record, its ended attempts and its result, each JSON.
func decodeTask(jobID string, index int, rawTask, rawAttempts, rawResult string) (pipeline.Task, error) {
	var (
		r     task
		ended []attempt
	)

	if err := errors.Join(decode(rawTask, &r), decode(rawAttempts, &ended)); err != nil {
		return pipeline.Task{}, err
	}

	t := pipeline.Task{
		ID: taskID(jobID, index), JobID: jobID, Run: r.Run, Kind: r.Kind, State: r.State,
		Output: r.Output, Part: r.Part, Weight: r.Weight, NotBefore: asTime(r.NotBefore),
	}

	for _, a := range ended {
		t.Attempts = append(t.Attempts, pipeline.Attempt{
			Number: a.Number, WorkerID: a.WorkerID, Started: asTime(a.Started), Ended: asTime(a.Ended),
			Outcome: a.Outcome, Failure: failure(a.Reason, a.Message), Charged: a.Charged,
		})
	}

	if r.State == pipeline.TaskLeased {
		t.Attempts = append(t.Attempts, pipeline.Attempt{
			Number: r.Attempt, WorkerID: r.WorkerID, Started: asTime(r.Started),
		})
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

// jobFields are the fields of a job row, in the order of ROW in lua/include/job.lua.
func jobFields() []string {
	return []string{"s", "p", "pr", "r", "q", "tc", "tq", "ts", "tp", "ty", "tf", "pc", "pg", "f", "sz", "et"}
}

// decodeJob reads a job from its row and its spec. False if it is not there (any more).
func decodeJob(id string, row []any, rawSpec string) (pipeline.Job, bool, error) {
	if len(row) < len(jobFields()) || row[0] == nil || rawSpec == "" {
		return pipeline.Job{}, false, nil
	}

	j := pipeline.Job{
		ID: id, State: pipeline.JobState(asString(row[0])), Project: asString(row[1]), Priority: int(asInt(row[2])),
		Run: int(asInt(row[3])), Sequence: asInt(row[4]),
		Times: pipeline.JobTimes{
			Created: asTime(row[5]), Queued: asTime(row[6]), Started: asTime(row[7]),
			Planned: asTime(row[8]), Playable: asTime(row[9]), Finished: asTime(row[10]),
		},
	}

	var spec jobSpec

	err := errors.Join(decode(rawSpec, &spec), decode(asString(row[12]), &j.Progress))
	if raw := asString(row[13]); raw != "" {
		j.Failure = new(pipeline.Failure)
		err = errors.Join(err, decode(raw, j.Failure))
	}

	if err != nil {
		return pipeline.Job{}, false, err
	}

	j.Spec, j.Source, j.Labels = spec.Spec, spec.Source, spec.Labels

	j.Progress.Percent = asFloat(row[11])
	if j.State.Terminal() {
		j.Progress.ETA = 0
	}

	if size := asInt(row[14]); size > 0 {
		j.Source.SizeBytes, j.Source.ETag = size, asString(row[15])
	}

	return j, true, nil
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
