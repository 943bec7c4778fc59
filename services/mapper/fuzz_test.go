package mapper_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

func bytesOf(f *testing.F, m proto.Message) []byte {
	f.Helper()

	raw, err := proto.Marshal(m)
	require.NoError(f, err)

	return raw
}

// read reads a message that the API's validation lets through; false for others.
func read(raw []byte, into proto.Message) bool {
	return proto.Unmarshal(raw, into) == nil && protovalidate.Validate(into) == nil
}

// FuzzPlan guarantees that whatever a client asks for and a probe finds has a
// plan of a bounded size or a typed refusal, and that no result breaks its
// verification.
func FuzzPlan(f *testing.F) {
	rate := &tcoderv1.Rational{Num: 30000, Den: 1001}
	probe := &tcoderv1.ProbeResult{
		Format: "mov,mp4", Duration: durationpb.New(95 * time.Second), SizeBytes: 1 << 20,
		Streams: []*tcoderv1.StreamInfo{
			{
				Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, Codec: "h264", Width: 1920, Height: 1080, PixelFormat: "yuv420p",
				FrameRate: rate, NominalFrameRate: rate, Duration: durationpb.New(95 * time.Second), RotationDegrees: 90,
			},
			{Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO, Codec: "aac", SampleRateHz: 44100, Channels: 6, Language: "en"},
		},
	}
	result := &tcoderv1.EncodeResult{Renditions: []*tcoderv1.EncodedRendition{{
		Result:      &tcoderv1.RenditionResult{Name: "720p", Codecs: "avc1.64001f", Width: 1280, Height: 720, FrameCount: 10, FrameRate: rate},
		InitSegment: &tcoderv1.EncodedObject{Name: "720p/init.mp4", SizeBytes: 1},
		Segments:    []*tcoderv1.EncodedObject{{Name: "720p/00000.m4s", SizeBytes: 1, Duration: durationpb.New(time.Second)}},
	}}}

	for _, preset := range media.Presets() {
		for _, slots := range []int{1, 64} {
			spec := &tcoderv1.JobSpec{Preset: preset.Name}
			f.Add(bytesOf(f, spec), bytesOf(f, probe), bytesOf(f, result), slots)
			f.Add(bytesOf(f, mapper.SpecToProto(preset.Spec)), bytesOf(f, probe), bytesOf(f, result), slots)
		}
	}

	f.Fuzz(func(t *testing.T, rawSpec, rawProbe, rawResult []byte, slots int) {
		var (
			spec   tcoderv1.JobSpec
			probe  tcoderv1.ProbeResult
			result tcoderv1.EncodeResult
		)

		if !read(rawSpec, &spec) || !read(rawProbe, &probe) {
			return
		}

		resolved, err := media.Resolve(mapper.SpecFromProto(&spec))
		if _, refused := errors.AsType[*media.SpecError](err); refused {
			return
		}

		require.NoError(t, err)

		limits := media.Limits{MaxPixels: 8192 * 4320, MaxDuration: 24 * time.Hour, MaxFPS: 240, MaxStreams: 64}

		plan, err := media.MakePlan(mapper.ProbeFromProto(&probe), resolved, limits, slots)
		if impossible, ok := errors.AsType[*media.PlanError](err); ok {
			require.NotEmpty(t, impossible.Reason)

			return
		}

		require.NoError(t, err)
		require.NotEmpty(t, plan.Outputs)
		require.LessOrEqual(t, plan.Duration, limits.MaxDuration)

		tasks := media.Tasks(plan)
		require.NotEmpty(t, tasks)
		require.LessOrEqual(t, len(tasks), 20_000)

		_, err = proto.Marshal(mapper.PlanToProto(plan))
		require.NoError(t, err)

		made, verifiable := media.EncodeResult{}, read(rawResult, &result)
		if verifiable {
			made = mapper.EncodeResultFromProto(&result)
		}

		for i, task := range tasks {
			require.False(t, math.IsNaN(task.Weight) || task.Weight < 0)

			for _, output := range plan.Outputs {
				if output.Name != task.Output || i > 100 {
					continue
				}

				_, ok := output.Share(task.Part)
				require.True(t, ok)

				_ = media.VerifyResult(output, task.Part, plan.Duration, made)
			}
		}
	})
}

// FuzzWorkerMessages guarantees that no message of a worker that validation
// lets through breaks its mapping to the domain.
func FuzzWorkerMessages(f *testing.F) {
	f.Add(bytesOf(f, &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{Hello: &tcoderv1.Hello{
		WorkerId: "w", Slots: 1, Held: []*tcoderv1.LeaseRef{{TaskId: "a-0", Attempt: 1}},
	}}}))
	f.Add(bytesOf(f, &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: &tcoderv1.Heartbeat{
		Running: []*tcoderv1.TaskProgress{{Lease: &tcoderv1.LeaseRef{TaskId: "a-0", Attempt: 1}, Fraction: 0.5, Speed: math.Inf(1)}},
	}}}))
	f.Add(bytesOf(f, &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{Report: &tcoderv1.TaskReport{
		Lease: &tcoderv1.LeaseRef{TaskId: "a-0", Attempt: 1}, End: &tcoderv1.TaskReport_Fault{Fault: &tcoderv1.Fault{
			Class: tcoderv1.FaultClass_FAULT_CLASS_INPUT, Failure: &tcoderv1.Failure{Message: "x"},
		}},
	}}}))

	f.Fuzz(func(t *testing.T, raw []byte) {
		var m tcoderv1.AttachRequest

		if !read(raw, &m) {
			return
		}

		switch m := m.GetMessage().(type) {
		case *tcoderv1.AttachRequest_Hello:
			w := mapper.WorkerFromProto(m.Hello)
			require.Positive(t, w.Slots)
			require.Len(t, w.Held, len(m.Hello.GetHeld()))
		case *tcoderv1.AttachRequest_Heartbeat:
			for _, p := range m.Heartbeat.GetRunning() {
				renewal := mapper.RenewalFromProto(p)
				require.True(t, renewal.Fraction >= 0 && renewal.Fraction <= 1)
				require.Positive(t, renewal.Ref.Attempt)
			}
		case *tcoderv1.AttachRequest_Report:
			switch end := m.Report.GetEnd().(type) {
			case *tcoderv1.TaskReport_Probe:
				mapper.ProbeFromProto(end.Probe)
			case *tcoderv1.TaskReport_Encode:
				mapper.EncodeResultFromProto(end.Encode)
			case *tcoderv1.TaskReport_Fault:
				mapper.FaultClassFromProto(end.Fault.GetClass())
				mapper.FailureFromProto(end.Fault.GetFailure())
			}
		}
	})
}
