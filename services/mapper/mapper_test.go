package mapper

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// filler fills every field of a value. The leaf called alter gets another
// value than usual, so that a test can see whether it counts.
type filler struct {
	alter string
	paths []string
}

// enumValues are two values of each enum of the domain.
func enumValues() map[reflect.Type][2]string {
	return map[reflect.Type][2]string{
		reflect.TypeFor[media.OutputKind]():      {"hls", "mp4"},
		reflect.TypeFor[media.VideoCodec]():      {"hevc", "av1"},
		reflect.TypeFor[media.AudioCodec]():      {"aac", ""},
		reflect.TypeFor[media.RateControl]():     {"bitrate", "capped_crf"},
		reflect.TypeFor[media.CopyPolicy]():      {"never", "when_fitting"},
		reflect.TypeFor[media.StreamKind]():      {"video", "audio"},
		reflect.TypeFor[pipeline.Reason]():       {"CANCELED", "INTERNAL"},
		reflect.TypeFor[pipeline.JobState]():     {"COMPLETED", "FAILED"},
		reflect.TypeFor[pipeline.TaskState]():    {"LEASED", "READY"},
		reflect.TypeFor[pipeline.TaskKind]():     {"PROBE", "ENCODE"},
		reflect.TypeFor[pipeline.Outcome]():      {"DONE", "LOST"},
		reflect.TypeFor[pipeline.EventType]():    {"CREATED", "QUEUED"},
		reflect.TypeFor[pipeline.WaitReason]():   {"QUEUE", "BACKOFF"},
		reflect.TypeFor[pipeline.Stage]():        {"PROBE", "ENCODE"},
		reflect.TypeFor[pipeline.MachineState](): {"RUNNING", "FAILED"},
		reflect.TypeFor[pipeline.FaultClass]():   {"INPUT", "MACHINE"},
		reflect.TypeFor[pipeline.UploadState]():  {"OPEN", "FAILED"},
	}
}

func (f *filler) fill(v reflect.Value, path string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		n := f.leaf(path)
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+n, 0).UTC()))

		return
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), path)

		return
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i), path+"."+v.Type().Field(i).Name)
		}

		return
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0), path+"[0]")

		return
	case v.Kind() == reflect.Map:
		item := reflect.New(v.Type().Elem()).Elem()
		f.fill(item, path+"[k]")
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), item)

		return
	}
	f.scalar(v, path)
}

func (f *filler) scalar(v reflect.Value, path string) {
	n := f.leaf(path)
	values, isEnum := enumValues()[v.Type()]
	switch {
	case isEnum && path == f.alter:
		v.SetString(values[1])
	case isEnum:
		v.SetString(values[0])
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("text-%d", n))
	case v.Kind() == reflect.Bool:
		v.SetBool(path != f.alter)
	case v.CanInt():
		v.SetInt(n)
	case v.CanFloat():
		v.SetFloat(float64(n) + 0.5)
	default:
		panic("no value for " + path + " of type " + v.Type().String())
	}
}

// leaf returns a number of its own for each leaf.
func (f *filler) leaf(path string) int64 {
	f.paths = append(f.paths, path)
	if path == f.alter {
		return 100_000
	}

	return int64(len(f.paths))
}

// filled returns a T with every field set, and the paths of its leaves.
func filled[T any](alter string) (T, []string) {
	var v T
	f := filler{alter: alter}
	f.fill(reflect.ValueOf(&v).Elem(), "")

	return v, f.paths
}

// populated fails for the first field of a message, at any depth, that is unset.
func populated(t *testing.T, m protoreflect.Message, path string) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := path + "." + string(fd.Name())
		require.True(t, m.Has(fd), "%s is not set", at)
		switch {
		case fd.IsMap() || fd.Message() == nil || fd.Message().ParentFile().Package() == "google.protobuf":
		case fd.IsList():
			populated(t, m.Get(fd).List().Get(0).Message(), at)
		default:
			populated(t, m.Get(fd).Message(), at)
		}
	}
}

// checkToProto shows that a filled domain value fills its message, and that
// every leaf of it, apart from those that stay inside, changes the message.
func checkToProto[T any, M proto.Message](t *testing.T, toProto func(T) M, inside ...string) {
	t.Helper()
	v, paths := filled[T]("")
	base := toProto(v)
	populated(t, base.ProtoReflect(), "")
	for _, path := range paths {
		changed, _ := filled[T](path)
		same := proto.Equal(base, toProto(changed))
		kept := false
		for _, p := range inside {
			kept = kept || len(path) >= len(p) && path[:len(p)] == p
		}
		require.Equal(t, kept, same, "%T%s", v, path)
	}
}

// No field of the domain is forgotten on the way out, and no field of a
// message stays empty.
func TestToProto(t *testing.T) {
	t.Parallel()
	checkToProto(t, SpecToProto)
	checkToProto(t, PresetToProto)
	checkToProto(t, ProbeToProto)
	checkToProto(t, PlanToProto)
	checkToProto(t, OutputPlanToProto)
	checkToProto(t, LimitsToProto)
	checkToProto(t, OutputToProto)
	checkToProto(t, OutputObjectToProto)
	// The results of tasks are published as outputs; weight, fraction and share
	// are what progress is reckoned from, and when a stream was written is for who
	// writes it next.
	// The limit is the service's to tell.
	limited := func(j pipeline.Job) *tcoderv1.Job {
		m := JobToProto(j)
		m.Waiting.RunningLimit = 1

		return m
	}
	checkToProto(t, limited, ".Tasks[0].JobID", ".Tasks[0].Weight", ".Tasks[0].Fraction", ".Tasks[0].Result",
		".Progress.Share", ".Streamed")
	checkToProto(t, ProgressToProto, ".Share")
	checkToProto(t, FailureToProto)
	checkToProto(t, EventToProto)
	checkToProto(t, UploadToProto, ".MultipartID")
	checkToProto(t, SignedRequestToProto)
	checkToProto(t, PartToProto)
	checkToProto(t, WorkerToProto, ".Session")
	checkToProto(t, MachineToProto)
	checkToProto(t, LeaseRefToProto)
	require.Nil(t, FailureToProto(nil))
}

// What clients and workers send arrives as it was meant: the way to the
// message and back changes nothing.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	spec, _ := filled[media.Spec]("")
	require.Equal(t, spec, SpecFromProto(SpecToProto(spec)))
	require.Equal(t, media.Spec{}, SpecFromProto(SpecToProto(media.Spec{})))
	require.Equal(t, media.Spec{}, SpecFromProto(nil))
	for _, p := range media.Presets() {
		require.Equal(t, p.Spec.Video, SpecFromProto(SpecToProto(p.Spec)).Video)
	}

	probe, _ := filled[media.Probe]("")
	require.Equal(t, probe, ProbeFromProto(ProbeToProto(probe)))
	other := media.Probe{Streams: []media.Stream{{Kind: media.StreamOther}}}
	require.Equal(t, other, ProbeFromProto(ProbeToProto(other)))

	ref, _ := filled[pipeline.LeaseRef]("")
	require.Equal(t, ref, LeaseRefFromProto(LeaseRefToProto(ref)))
	failure, _ := filled[pipeline.Failure]("")
	require.Equal(t, failure, FailureFromProto(FailureToProto(&failure)))
}

// fillProto sets every field of a message; the leaf called alter to another
// value than usual. It returns the paths of the leaves.
func fillProto(m protoreflect.Message, path, alter string) []string {
	var paths []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := path + "." + string(fd.Name())
		switch {
		case fd.IsList() && fd.Message() != nil:
			paths = append(paths, fillProto(m.Mutable(fd).List().AppendMutable().Message(), at, alter)...)
		case fd.IsList():
			paths = append(paths, at)
			m.Mutable(fd).List().Append(scalarProto(fd, 1, at == alter))
		case fd.Message() != nil:
			paths = append(paths, fillProto(m.Mutable(fd).Message(), at, alter)...)
		default:
			paths = append(paths, at)
			m.Set(fd, scalarProto(fd, int64(fd.Number()), at == alter))
		}
	}

	return paths
}

func scalarProto(fd protoreflect.FieldDescriptor, n int64, altered bool) protoreflect.Value {
	if altered {
		n += 1000
	}
	switch fd.Kind() {
	case protoreflect.EnumKind:
		if altered {
			return protoreflect.ValueOfEnum(2)
		}

		return protoreflect.ValueOfEnum(1)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!altered)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("text-%d", n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) + 0.5)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n)
	default:
		panic("no value for " + string(fd.FullName()))
	}
}

func checkFromProto[M proto.Message, T any](t *testing.T, fromProto func(M) T) {
	t.Helper()
	var zero M
	build := func(alter string) (T, []string) {
		m := zero.ProtoReflect().New()
		paths := fillProto(m, "", alter)
		message, ok := m.Interface().(M)
		require.True(t, ok)

		return fromProto(message), paths
	}
	base, paths := build("")
	for _, path := range paths {
		changed, _ := build(path)
		require.NotEqual(t, base, changed, "%T%s is forgotten", zero, path)
	}
}

// Every field that a client or a worker sends reaches the domain.
func TestFromProto(t *testing.T) {
	t.Parallel()
	checkFromProto(t, SpecFromProto)
	checkFromProto(t, ProbeFromProto)
	checkFromProto(t, EncodeResultFromProto)
	checkFromProto(t, EncodedObjectFromProto)
	checkFromProto(t, UploadedSegmentsFromProto)
	checkFromProto(t, WorkerFromProto)
	checkFromProto(t, RenewalFromProto)
	checkFromProto(t, FailureFromProto)
	require.Nil(t, EncodeResultFromProto(&tcoderv1.EncodeResult{}).Renditions)
}

// A size that no int64 holds stays larger than every limit.
func TestHugeSizes(t *testing.T) {
	t.Parallel()
	object := EncodedObjectFromProto(&tcoderv1.EncodedObject{SizeBytes: math.MaxUint64})
	require.Equal(t, int64(math.MaxInt64), object.SizeBytes)
}

// The state of a worker follows from what the store knows of it.
func TestWorkerState(t *testing.T) {
	t.Parallel()
	held := []pipeline.LeaseRef{{TaskID: "j-0", Attempt: 1}}
	tests := map[tcoderv1.WorkerState]pipeline.Worker{
		tcoderv1.WorkerState_WORKER_STATE_IDLE:     {Attached: true},
		tcoderv1.WorkerState_WORKER_STATE_BUSY:     {Attached: true, Held: held},
		tcoderv1.WorkerState_WORKER_STATE_DRAINING: {Attached: true, Held: held, Draining: true},
		tcoderv1.WorkerState_WORKER_STATE_DETACHED: {Held: held},
	}
	for want, w := range tests {
		require.Equal(t, want, WorkerToProto(w).GetState())
	}
}

// The stages of a job give the times that people ask for, and only once they
// are known.
func TestJobDurations(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	job := pipeline.Job{State: pipeline.JobRunning, Times: pipeline.JobTimes{Created: start, Queued: start.Add(time.Second)}}
	require.Nil(t, JobToProto(job).GetTimeToPlayable())
	require.Nil(t, JobToProto(job).GetTimeToComplete())
	job.State = pipeline.JobFailed
	job.Times.Finished = start.Add(3 * time.Second)
	require.Nil(t, JobToProto(job).GetTimeToComplete())
	job.State = pipeline.JobCompleted
	job.Times.Playable = start.Add(2 * time.Second)
	require.Equal(t, time.Second, JobToProto(job).GetTimeToPlayable().AsDuration())
	require.Equal(t, 2*time.Second, JobToProto(job).GetTimeToComplete().AsDuration())
}
