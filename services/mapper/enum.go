package mapper

import (
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// The API and the domain name the values of an enum alike, apart from the
// prefix that protobuf wants and, in package media, the case.

const (
	prefixReason        = "ERROR_REASON_"
	prefixJobState      = "JOB_STATE_"
	prefixUploadState   = "UPLOAD_STATE_"
	prefixTaskState     = "TASK_STATE_"
	prefixTaskKind      = "TASK_KIND_"
	prefixOutcome       = "ATTEMPT_OUTCOME_"
	prefixEventType     = "JOB_EVENT_TYPE_"
	prefixWaitReason    = "WAIT_REASON_"
	prefixStage         = "STAGE_"
	prefixMachineState  = "MACHINE_STATE_"
	prefixProblemKind   = "POOL_PROBLEM_KIND_"
	prefixFaultClass    = "FAULT_CLASS_"
	prefixReportVerdict = "REPORT_VERDICT_"
	prefixOutputKind    = "OUTPUT_KIND_"
	prefixVideoCodec    = "VIDEO_CODEC_"
	prefixAudioCodec    = "AUDIO_CODEC_"
	prefixRateControl   = "RATE_CONTROL_"
	prefixCopyPolicy    = "COPY_POLICY_"
	prefixStreamKind    = "STREAM_KIND_"
	unspecified         = 0
)

// enumToProto returns the value of an enum that is called prefix + name, in
// any case of name; 0 if there is none.
func enumToProto[E ~int32, S ~string](values map[string]int32, prefix string, name S) E {
	return E(values[prefix+strings.ToUpper(string(name))])
}

// enumFromProto returns the name of a value without its prefix; empty for
// UNSPECIFIED and unknown values.
func enumFromProto[S ~string, E ~int32](names map[int32]string, prefix string, value E) S {
	if value == unspecified {
		return ""
	}

	return S(strings.TrimPrefix(names[int32(value)], prefix))
}

// lowerFromProto is enumFromProto for the enums of package media, whose
// values are in lower case.
func lowerFromProto[S ~string, E ~int32](names map[int32]string, prefix string, value E) S {
	return S(strings.ToLower(string(enumFromProto[S](names, prefix, value))))
}

// ReasonToProto returns the API's value of a reason; INTERNAL for one that it
// doesn't have, since UNSPECIFIED is never sent.
func ReasonToProto(r pipeline.Reason) tcoderv1.ErrorReason {
	if v := enumToProto[tcoderv1.ErrorReason](tcoderv1.ErrorReason_value, prefixReason, r); v != unspecified {
		return v
	}

	return tcoderv1.ErrorReason_ERROR_REASON_INTERNAL
}

// ReasonFromProto returns the reason of an API value; ReasonInternal for one
// that is not known.
func ReasonFromProto(v tcoderv1.ErrorReason) pipeline.Reason {
	if r := enumFromProto[pipeline.Reason](tcoderv1.ErrorReason_name, prefixReason, v); r != "" {
		return r
	}

	return pipeline.ReasonInternal
}

// JobStateToProto returns the API's value of a job's state.
func JobStateToProto(s pipeline.JobState) tcoderv1.JobState {
	return enumToProto[tcoderv1.JobState](tcoderv1.JobState_value, prefixJobState, s)
}

// JobStateFromProto returns the state of an API value.
func JobStateFromProto(v tcoderv1.JobState) pipeline.JobState {
	return enumFromProto[pipeline.JobState](tcoderv1.JobState_name, prefixJobState, v)
}

// TaskKindToProto returns the API's value of a task's kind.
func TaskKindToProto(k pipeline.TaskKind) tcoderv1.TaskKind {
	return enumToProto[tcoderv1.TaskKind](tcoderv1.TaskKind_value, prefixTaskKind, k)
}

// MachineStateToProto returns the API's value of a machine's state.
func MachineStateToProto(s pipeline.MachineState) tcoderv1.MachineState {
	return enumToProto[tcoderv1.MachineState](tcoderv1.MachineState_value, prefixMachineState, s)
}

// ProblemKindToProto returns the API's value of a kind of problem.
func ProblemKindToProto(k pipeline.ProblemKind) tcoderv1.PoolProblemKind {
	return enumToProto[tcoderv1.PoolProblemKind](tcoderv1.PoolProblemKind_value, prefixProblemKind, k)
}

// FaultClassFromProto returns the class of an API value.
func FaultClassFromProto(v tcoderv1.FaultClass) pipeline.FaultClass {
	return enumFromProto[pipeline.FaultClass](tcoderv1.FaultClass_name, prefixFaultClass, v)
}

// VerdictToProto returns the API's value of a verdict of the store.
func VerdictToProto(v pipeline.Verdict) tcoderv1.ReportVerdict {
	return enumToProto[tcoderv1.ReportVerdict](tcoderv1.ReportVerdict_value, prefixReportVerdict, v)
}
