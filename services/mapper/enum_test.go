package mapper

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// constants returns the values of the string constants of a type, read from
// the source of its package, so that a new constant can't be forgotten here.
func constants(t *testing.T, dir, typeName string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var values []string
	for _, name := range files {
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typeName {
				return true
			}
			for _, v := range spec.Values {
				if literal, ok := v.(*ast.BasicLit); ok {
					s, err := strconv.Unquote(literal.Value)
					require.NoError(t, err)
					values = append(values, s)
				}
			}

			return true
		})
	}
	require.NotEmpty(t, values, typeName)

	return values
}

// Every value of every enum of the API has a constant of the domain with the
// same name, and every constant has a value.
func TestEnumsMatchTheDomain(t *testing.T) {
	t.Parallel()
	const pipelineDir, mediaDir = "../../internal/pipeline", "../../internal/media"
	tests := []struct {
		dir, typeName, prefix string
		enum                  protoreflect.EnumDescriptor
		protoOnly             []string // answers that no domain value stands for
		domainOnly            []string // what UNSPECIFIED stands for
	}{
		{pipelineDir, "Reason", prefixReason, tcoderv1.ErrorReason(0).Descriptor(), nil, nil},
		{pipelineDir, "JobState", prefixJobState, tcoderv1.JobState(0).Descriptor(), nil, nil},
		{pipelineDir, "UploadState", prefixUploadState, tcoderv1.UploadState(0).Descriptor(), nil, nil},
		{pipelineDir, "TaskState", prefixTaskState, tcoderv1.TaskState(0).Descriptor(), nil, nil},
		{pipelineDir, "TaskKind", prefixTaskKind, tcoderv1.TaskKind(0).Descriptor(), nil, nil},
		{pipelineDir, "Outcome", prefixOutcome, tcoderv1.AttemptOutcome(0).Descriptor(), nil, nil},
		{pipelineDir, "EventType", prefixEventType, tcoderv1.JobEventType(0).Descriptor(), nil, nil},
		{pipelineDir, "WaitReason", prefixWaitReason, tcoderv1.WaitReason(0).Descriptor(), nil, []string{""}},
		{pipelineDir, "MachineState", prefixMachineState, tcoderv1.MachineState(0).Descriptor(), nil, nil},
		{pipelineDir, "FaultClass", prefixFaultClass, tcoderv1.FaultClass(0).Descriptor(), nil, nil},
		{pipelineDir, "Verdict", prefixReportVerdict, tcoderv1.ReportVerdict(0).Descriptor(), []string{"REJECTED"}, nil},
		{mediaDir, "OutputKind", prefixOutputKind, tcoderv1.OutputKind(0).Descriptor(), nil, nil},
		{mediaDir, "VideoCodec", prefixVideoCodec, tcoderv1.VideoCodec(0).Descriptor(), nil, nil},
		{mediaDir, "AudioCodec", prefixAudioCodec, tcoderv1.AudioCodec(0).Descriptor(), nil, nil},
		{mediaDir, "RateControl", prefixRateControl, tcoderv1.RateControl(0).Descriptor(), nil, nil},
		{mediaDir, "CopyPolicy", prefixCopyPolicy, tcoderv1.CopyPolicy(0).Descriptor(), nil, nil},
		{mediaDir, "StreamKind", prefixStreamKind, tcoderv1.StreamKind(0).Descriptor(), nil, []string{"OTHER"}},
	}
	for _, tt := range tests {
		t.Run(tt.typeName, func(t *testing.T) {
			t.Parallel()
			want := tt.protoOnly
			for _, c := range constants(t, tt.dir, tt.typeName) {
				if !slices.Contains(tt.domainOnly, strings.ToUpper(c)) {
					want = append(want, strings.ToUpper(c))
				}
			}
			var got []string
			for i := range tt.enum.Values().Len() {
				v := tt.enum.Values().Get(i)
				name, ok := strings.CutPrefix(string(v.Name()), tt.prefix)
				require.True(t, ok, v.Name())
				if v.Number() != unspecified {
					got = append(got, name)
				}
			}
			require.ElementsMatch(t, want, got)
		})
	}
}

// A reason survives the way to the API and back, and what is not known
// becomes INTERNAL in both directions.
func TestReasons(t *testing.T) {
	t.Parallel()
	for number := range tcoderv1.ErrorReason_name {
		v := tcoderv1.ErrorReason(number)
		if v != unspecified {
			require.Equal(t, v, ReasonToProto(ReasonFromProto(v)))
		}
	}
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, ReasonToProto("FROM_THE_FUTURE"))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, ReasonToProto(""))
	require.Equal(t, pipeline.ReasonInternal, ReasonFromProto(9999))
	require.Equal(t, pipeline.ReasonInternal, ReasonFromProto(0))
}
