package interceptor_test

import (
	"context"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// bearer sends a credential with every call.
func bearer(token string) connect.ClientOption {
	return connect.WithInterceptors(header{"Authorization", "Bearer " + token})
}

type header struct{ key, value string }

func (h header) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		req.Header().Set(h.key, h.value)

		return next(ctx, req)
	}
}

func (h header) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		conn.RequestHeader().Set(h.key, h.value)

		return conn
	}
}

func (h header) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// attachError opens a worker's stream and returns how it ended; nil if it was
// let in.
func attachError(ctx context.Context, workers tcoderv1connect.PoolServiceClient) error {
	stream, err := workers.Attach(ctx)
	if err != nil {
		return err
	}
	// An early refusal may break the sending; the answer tells why.
	_ = stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Draining{}})
	_ = stream.CloseRequest()
	_, err = stream.Receive()
	_ = stream.CloseResponse()
	if connect.CodeOf(err) == connect.CodeUnknown { // io.EOF: the handler ended well
		return nil
	}

	return err
}

// Keys open the calls of clients, the worker token opens Attach, and neither
// opens the other's; without keys all is open but a guarded Attach.
func TestAccess(t *testing.T) {
	t.Parallel()
	const ok = connect.Code(0)
	keys := map[string]string{"key-a": "alpha", "key-b": "beta"}
	tests := map[string]struct {
		cfg         interceptor.Config
		token       string
		get, attach connect.Code
		project     string
	}{
		"open":                      {interceptor.Config{}, "", ok, ok, "default"},
		"open, stray credential":    {interceptor.Config{}, "x", ok, ok, "default"},
		"worker token only, none":   {interceptor.Config{WorkerToken: "w"}, "", ok, connect.CodeUnauthenticated, "default"},
		"worker token only, worker": {interceptor.Config{WorkerToken: "w"}, "w", ok, ok, "default"},
		"keys, none":                {interceptor.Config{APIKeys: keys, WorkerToken: "w"}, "", connect.CodeUnauthenticated, connect.CodeUnauthenticated, ""},
		"keys, wrong":               {interceptor.Config{APIKeys: keys, WorkerToken: "w"}, "nope", connect.CodeUnauthenticated, connect.CodeUnauthenticated, ""},
		"keys, a":                   {interceptor.Config{APIKeys: keys, WorkerToken: "w"}, "key-a", ok, connect.CodePermissionDenied, "alpha"},
		"keys, b":                   {interceptor.Config{APIKeys: keys, WorkerToken: "w"}, "key-b", ok, connect.CodePermissionDenied, "beta"},
		"keys, worker":              {interceptor.Config{APIKeys: keys, WorkerToken: "w"}, "w", connect.CodePermissionDenied, ok, ""},
		"keys, a machine": {
			interceptor.Config{APIKeys: keys, WorkerToken: "w"}, interceptor.MachineToken("w", "m1"), connect.CodePermissionDenied, ok, "",
		},
		"keys, a machine of another pool": {
			interceptor.Config{APIKeys: keys, WorkerToken: "w"}, interceptor.MachineToken("v", "m1"), connect.CodeUnauthenticated, connect.CodeUnauthenticated, "",
		},
		"keys, no worker token": {interceptor.Config{APIKeys: keys}, "", connect.CodeUnauthenticated, connect.CodeUnauthenticated, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var opts []connect.ClientOption
			if tt.token != "" {
				opts = append(opts, bearer(tt.token))
			}
			b := setup(t, tt.cfg, opts...)
			project := ""
			b.jobs.get = func(ctx context.Context, _ *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
				project = interceptor.Project(ctx)

				return &tcoderv1.GetJobResponse{}, nil
			}
			check := func(want connect.Code, err error) {
				t.Helper()
				if want == ok {
					require.NoError(t, err)

					return
				}
				code, detail := detailOf(t, err)
				require.Equal(t, want, code)
				require.NotEmpty(t, detail.GetReason())
			}
			_, err := b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: "j"})
			check(tt.get, err)
			require.Equal(t, tt.project, project)
			check(tt.get, watchError(t.Context(), b, &tcoderv1.WatchJobRequest{JobId: "j"}))
			check(tt.attach, attachError(t.Context(), b.workers))
			require.NotContains(t, b.log.String(), "key-")
		})
	}
}

// A procedure that the table doesn't name is refused, even to the open server.
func TestUnknownProcedureIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	secret := connect.NewClient[tcoderv1.GetJobRequest, tcoderv1.GetJobResponse](b.client, b.url+"/tcoder.v1.JobService/Secret")
	_, err := secret.CallUnary(t.Context(), connect.NewRequest(&tcoderv1.GetJobRequest{JobId: "j"}))
	code, detail := detailOf(t, err)
	require.Equal(t, connect.CodePermissionDenied, code)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, detail.GetReason())
	require.Contains(t, b.log.String(), "PERMISSION_DENIED")
}
