package mapper

import (
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// JobToProto returns the message of a job.
func JobToProto(j pipeline.Job) *tcoderv1.Job {
	p := &tcoderv1.Job{
		Id:      j.ID,
		Project: j.Project,
		State:   JobStateToProto(j.State),
		Spec:    SpecToProto(j.Spec),
		Source: &tcoderv1.Source{
			ObjectKey: j.Source.ObjectKey,
			SizeBytes: uint64(j.Source.SizeBytes),
			Etag:      j.Source.ETag,
			Filename:  j.Source.Filename,
			UploadId:  j.Source.UploadID,
		},
		Priority: int32(j.Priority),
		Labels:   j.Labels,
		Times: &tcoderv1.JobTimes{
			CreatedAt:  timeToProto(j.Times.Created),
			QueuedAt:   timeToProto(j.Times.Queued),
			StartedAt:  timeToProto(j.Times.Started),
			PlannedAt:  timeToProto(j.Times.Planned),
			PlayableAt: timeToProto(j.Times.Playable),
			FinishedAt: timeToProto(j.Times.Finished),
		},
		Run:      uint32(j.Run),
		Sequence: uint64(j.Sequence),
		Progress: ProgressToProto(j.Progress),
		Failure:  FailureToProto(j.Failure),
		Outputs:  mapSlice(j.Outputs, OutputToProto),
		Tasks:    mapSlice(j.Tasks, TaskToProto),
		Playable: mapSlice(j.Playable, func(o pipeline.PlayableOutput) *tcoderv1.PlayableOutput {
			return &tcoderv1.PlayableOutput{Output: o.Output, ObjectKey: o.ObjectKey}
		}),
	}
	if j.Probe != nil {
		p.Probe = ProbeToProto(*j.Probe)
	}
	if j.Plan != nil {
		p.Plan = PlanToProto(*j.Plan)
	}
	if j.Wait != pipeline.WaitNone {
		p.Waiting = &tcoderv1.Waiting{
			Reason:   enumToProto[tcoderv1.WaitReason](tcoderv1.WaitReason_value, prefixWaitReason, j.Wait),
			Position: uint64(j.WaitPosition),
		}
	}
	if !j.Times.Queued.IsZero() && !j.Times.Playable.IsZero() {
		p.TimeToPlayable = durationToProto(j.Times.Playable.Sub(j.Times.Queued))
	}
	if j.State == pipeline.JobCompleted && !j.Times.Queued.IsZero() && !j.Times.Finished.IsZero() {
		p.TimeToComplete = durationToProto(j.Times.Finished.Sub(j.Times.Queued))
	}

	return p
}

// ProgressToProto returns the message of a job's progress.
func ProgressToProto(p pipeline.Progress) *tcoderv1.Progress {
	return &tcoderv1.Progress{
		Percent:   p.Percent,
		MediaTime: durationToProto(p.MediaTime),
		Speed:     p.Speed,
		Fps:       p.FPS,
		Eta:       durationToProto(p.ETA),
		Stages: mapSlice(p.Stages, func(s pipeline.StageProgress) *tcoderv1.StageProgress {
			return &tcoderv1.StageProgress{
				Stage: enumToProto[tcoderv1.Stage](tcoderv1.Stage_value, prefixStage, s.Stage), Percent: s.Percent,
			}
		}),
		Renditions: mapSlice(p.Renditions, func(r pipeline.RenditionProgress) *tcoderv1.RenditionProgress {
			return &tcoderv1.RenditionProgress{
				Output: r.Output, Name: r.Name, Playable: durationToProto(r.Playable), Percent: r.Percent,
			}
		}),
	}
}

// FailureToProto returns the message of a failure; nil for nil.
func FailureToProto(f *pipeline.Failure) *tcoderv1.Failure {
	if f == nil {
		return nil
	}

	return &tcoderv1.Failure{Reason: ReasonToProto(f.Reason), Message: f.Message}
}

// FailureFromProto returns the failure of a message; INTERNAL for nil.
func FailureFromProto(f *tcoderv1.Failure) pipeline.Failure {
	return pipeline.Failure{Reason: ReasonFromProto(f.GetReason()), Message: cut(f.GetMessage(), maxMessageBytes)}
}

// TaskToProto returns the message of a task.
func TaskToProto(t pipeline.Task) *tcoderv1.Task {
	return &tcoderv1.Task{
		Id:        t.ID,
		Kind:      TaskKindToProto(t.Kind),
		State:     enumToProto[tcoderv1.TaskState](tcoderv1.TaskState_value, prefixTaskState, t.State),
		Output:    t.Output,
		Part:      uint32(t.Part),
		Attempts:  mapSlice(t.Attempts, attemptToProto),
		NotBefore: timeToProto(t.NotBefore),
		Run:       uint32(t.Run),
	}
}

func attemptToProto(a pipeline.Attempt) *tcoderv1.Attempt {
	return &tcoderv1.Attempt{
		Number:    uint32(a.Number),
		WorkerId:  a.WorkerID,
		StartedAt: timeToProto(a.Started),
		EndedAt:   timeToProto(a.Ended),
		Outcome:   enumToProto[tcoderv1.AttemptOutcome](tcoderv1.AttemptOutcome_value, prefixOutcome, a.Outcome),
		Failure:   FailureToProto(a.Failure),
		Charged:   a.Charged,
	}
}

// EventToProto returns the message of an event.
func EventToProto(e pipeline.Event) *tcoderv1.JobEvent {
	return &tcoderv1.JobEvent{
		Sequence: uint64(e.Sequence),
		Type:     enumToProto[tcoderv1.JobEventType](tcoderv1.JobEventType_value, prefixEventType, e.Type),
		At:       timeToProto(e.At),
		JobId:    e.JobID,
		TaskId:   e.TaskID,
		Attempt:  uint32(e.Attempt),
		Failure:  FailureToProto(e.Failure),
	}
}
