package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// failWith makes the handlers of both kinds of call fail with err.
func failWith(b *bench, err error) {
	b.jobs.get = func(context.Context, *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) { return nil, err }
	b.jobs.watch = func(context.Context, *tcoderv1.WatchJobRequest, *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
		return err
	}
}

// both runs a check of the error of a unary call and of a stream.
func both(t *testing.T, b *bench, check func(t *testing.T, code connect.Code, message string, d *tcoderv1.ErrorDetail)) {
	t.Helper()
	_, err := b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: "j"})
	code, detail := detailOf(t, err)
	check(t, code, err.Error(), detail)
	err = watchError(t.Context(), b, &tcoderv1.WatchJobRequest{JobId: "j"})
	code, detail = detailOf(t, err)
	check(t, code, err.Error(), detail)
}

// A domain error reaches the caller whole, in every protocol, and its cause
// reaches the log alone.
func TestDomainErrors(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, interceptor.Config{}, opts...)
			failWith(b, fmt.Errorf("reading: %w", &pipeline.Error{
				Reason: pipeline.ReasonQueueFull, Message: "too many jobs wait", Remedy: "Wait.",
				Fields:   []pipeline.FieldViolation{{Field: "spec", Description: "is heavy"}},
				Metadata: map[string]string{"waiting": "7"}, RetryAfter: 3 * time.Second, Cause: errors.New("password=hunter2"),
			}))
			both(t, b, func(t *testing.T, code connect.Code, message string, d *tcoderv1.ErrorDetail) {
				t.Helper()
				require.Equal(t, connect.CodeResourceExhausted, code)
				require.Equal(t, "resource_exhausted: too many jobs wait", message)
				require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_QUEUE_FULL, d.GetReason())
				require.Equal(t, "Wait.", d.GetRemedy())
				require.Equal(t, "spec", d.GetFields()[0].GetField())
				require.Equal(t, "7", d.GetMetadata()["waiting"])
				require.Equal(t, 3*time.Second, d.GetRetryAfter().AsDuration())
			})
			require.Contains(t, b.log.String(), "hunter2")
		})
	}
}

// What isn't meant for callers becomes one fixed text with the id under which
// the log has it.
func TestUnknownErrorsStayInside(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"plain":           errors.New("dial redis://:hunter2@10.0.0.1"),
		"internal domain": &pipeline.Error{Reason: pipeline.ReasonInternal, Message: "hunter2"},
		"unknown reason":  &pipeline.Error{Reason: "FROM_THE_FUTURE", Message: "hunter2"},
		"coded":           connect.NewError(connect.CodeDataLoss, errors.New("hunter2")),
		"object store":    fmt.Errorf("%w: hunter2", objectstore.ErrInvalidPart),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, interceptor.Config{})
			failWith(b, err)
			both(t, b, func(t *testing.T, code connect.Code, message string, d *tcoderv1.ErrorDetail) {
				t.Helper()
				require.Equal(t, connect.CodeInternal, code)
				require.Equal(t, "internal: internal error", message)
				require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, d.GetReason())
				require.NotContains(t, d.String(), "hunter2")
				id := d.GetMetadata()["request_id"]
				require.NotEmpty(t, id)
				require.Contains(t, b.log.String(), id)
			})
			require.Contains(t, b.log.String(), "hunter2")
		})
	}
}

// Errors of the packages below get the code and the reason that they stand for.
func TestErrorsOfOtherPackages(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		code   connect.Code
		reason tcoderv1.ErrorReason
		field  string
	}{
		"spec": {
			&media.SpecError{Reason: "UNKNOWN_QUALITY", Field: "qualities[0]", Message: "no"},
			connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_QUALITY, "spec.qualities[0]",
		},
		"plan": {
			&media.PlanError{Reason: "INPUT_NOT_MEDIA", Message: "no"},
			connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, "",
		},
		"object store": {
			fmt.Errorf("head: %w", objectstore.ErrUnavailable),
			connect.CodeUnavailable, tcoderv1.ErrorReason_ERROR_REASON_OBJECT_STORE_UNAVAILABLE, "",
		},
		"deadline of a dependency": {
			fmt.Errorf("get: %w", context.DeadlineExceeded),
			connect.CodeDeadlineExceeded, tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE, "",
		},
		"canceled": {context.Canceled, connect.CodeCanceled, tcoderv1.ErrorReason_ERROR_REASON_CANCELED, ""},
		"draining": {interceptor.ErrDraining(), connect.CodeUnavailable, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, interceptor.Config{})
			failWith(b, tt.err)
			both(t, b, func(t *testing.T, code connect.Code, _ string, d *tcoderv1.ErrorDetail) {
				t.Helper()
				require.Equal(t, tt.code, code)
				require.Equal(t, tt.reason, d.GetReason())
				if tt.field != "" {
					require.Equal(t, tt.field, d.GetFields()[0].GetField())
				}
			})
		})
	}
}

// A panic costs its own call, is logged with its stack, and tells nothing.
func TestPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	b.jobs.get = func(context.Context, *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) { panic("hunter2") }
	b.jobs.watch = func(context.Context, *tcoderv1.WatchJobRequest, *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
		panic(errors.New("hunter2"))
	}
	both(t, b, func(t *testing.T, code connect.Code, message string, _ *tcoderv1.ErrorDetail) {
		t.Helper()
		require.Equal(t, connect.CodeInternal, code)
		require.NotContains(t, message, "hunter2")
	})
	require.Equal(t, 2, strings.Count(b.log.String(), `"stack"`))
	require.Contains(t, b.log.String(), "errors_test.go")
}

// A unary call ends at the server's bound, whatever deadline the client set
// or didn't; a stream has none.
func TestDeadline(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{UnaryTimeout: 20 * time.Millisecond})
	b.jobs.get = func(ctx context.Context, _ *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		<-ctx.Done()

		return nil, fmt.Errorf("store: %w", ctx.Err())
	}
	b.jobs.watch = func(ctx context.Context, _ *tcoderv1.WatchJobRequest, _ *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
		if _, bounded := ctx.Deadline(); bounded {
			return errors.New("a stream with a deadline")
		}

		return nil
	}
	_, err := b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: "j"})
	code, detail := detailOf(t, err)
	require.Equal(t, connect.CodeDeadlineExceeded, code)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE, detail.GetReason())
	require.NoError(t, watchError(t.Context(), b, &tcoderv1.WatchJobRequest{JobId: "j"}))
}

// A request keeps the id that its client gave it, and gets one otherwise.
func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	for sent, kept := range map[string]bool{"trace-1": true, "": false, "bad id\twith space": false, strings.Repeat("x", 65): false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/tcoder.v1.JobService/GetJob", strings.NewReader(`{"jobId":"j"}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(interceptor.HeaderRequestID, sent)
		res, err := b.client.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		got := res.Header.Get(interceptor.HeaderRequestID)
		require.NotEmpty(t, got)
		require.Equal(t, kept, got == sent)
		require.Contains(t, b.log.String(), got)
	}
}
