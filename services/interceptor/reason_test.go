package interceptor

import (
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// Every reason of the API has a code, and no code hides that something is wrong.
func TestEveryReasonHasACode(t *testing.T) {
	t.Parallel()
	table := codes()
	for number := range tcoderv1.ErrorReason_name {
		if number == 0 {
			continue
		}
		reason := mapper.ReasonFromProto(tcoderv1.ErrorReason(number))
		code, ok := table[reason]
		require.True(t, ok, reason)
		require.NotEqual(t, connect.CodeUnknown, code, reason)
		delete(table, reason)
	}
	require.Empty(t, table, "codes of reasons that the API doesn't have")
	for reason := range remedies() {
		require.Contains(t, codes(), reason)
	}
}

// Every procedure of the API is in the table of access, and nothing else of it.
func TestEveryProcedureHasAnAccess(t *testing.T) {
	t.Parallel()
	table := accessTable()
	for _, file := range []protoreflect.FileDescriptor{
		tcoderv1.File_tcoder_v1_upload_proto, tcoderv1.File_tcoder_v1_job_proto, tcoderv1.File_tcoder_v1_pool_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				procedure := "/" + string(service.FullName()) + "/" + string(service.Methods().Get(j).Name())
				require.Contains(t, table, procedure)
				require.Contains(t, []access{client, worker}, table[procedure], procedure)
				delete(table, procedure)
			}
		}
	}
	for procedure, who := range table {
		require.Equal(t, anybody, who, procedure)
		require.Regexp(t, `^/grpc\.`, procedure)
	}
}
