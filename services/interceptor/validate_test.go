package interceptor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// A request that breaks a rule never reaches its handler; the error names the
// field as the API does.
func TestValidation(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	both := func(err error, field string) {
		t.Helper()
		code, detail := detailOf(t, err)
		require.Equal(t, connect.CodeInvalidArgument, code)
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, detail.GetReason())
		require.Equal(t, field, detail.GetFields()[0].GetField())
		require.NotEmpty(t, detail.GetFields()[0].GetDescription())
		require.Contains(t, err.Error(), field)
	}
	_, err := b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{})
	both(err, "job_id")
	both(watchError(t.Context(), b, &tcoderv1.WatchJobRequest{JobId: strings.Repeat("x", 65)}), "job_id")
}

// Each message of a stream is checked, not only the first.
func TestStreamMessagesAreValidated(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	received := 0
	b.pool.attach = func(_ context.Context, s *connect.BidiStream[tcoderv1.AttachRequest, tcoderv1.AttachResponse]) error {
		for {
			if _, err := s.Receive(); err != nil {
				return err
			}
			received++
		}
	}
	stream, err := b.workers.Attach(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{
		Hello: &tcoderv1.Hello{WorkerId: "w", Slots: 1},
	}}))
	require.NoError(t, stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{
		Sign: &tcoderv1.SignRequest{Lease: &tcoderv1.LeaseRef{TaskId: "t", Attempt: 1}, Objects: []*tcoderv1.EncodedObject{{Name: "../etc/passwd"}}},
	}}))
	_, err = stream.Receive()
	code, detail := detailOf(t, err)
	require.Equal(t, connect.CodeInvalidArgument, code)
	require.Equal(t, "sign.objects[0].name", detail.GetFields()[0].GetField())
	require.NoError(t, stream.CloseResponse())
	require.Equal(t, 1, received)
	require.Contains(t, b.log.String(), `"worker_id":"w"`)
}

// A body that can't be decoded is told like any other bad request, with its
// detail, and is logged; unknown fields of newer clients pass.
func TestUndecodableBodies(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	post := func(path, contentType, body string) (int, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", contentType)
		res, err := b.client.Do(req)
		require.NoError(t, err)
		defer func() { require.NoError(t, res.Body.Close()) }()
		raw, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		answer := map[string]any{}
		if res.Header.Get("Content-Type") == "application/json" {
			require.NoError(t, json.Unmarshal(raw, &answer))
		}

		return res.StatusCode, answer
	}
	const get = "/tcoder.v1.JobService/GetJob"
	for _, body := range []string{`{"jobId": 7}`, `{`, ``, `[]`, `{"jobId":"a","jobId":"b"}`} {
		status, answer := post(get, "application/json", body)
		require.Equal(t, http.StatusBadRequest, status, body)
		require.Equal(t, "invalid_argument", answer["code"])
		require.Contains(t, answer["message"], "the request can't be decoded")
		require.Contains(t, fmt.Sprint(answer["details"]), "type:tcoder.v1.ErrorDetail")
	}
	require.Equal(t, 5, strings.Count(b.log.String(), `"reason":"REQUEST_INVALID"`))
	status, answer := post(get, "application/proto", "\xff\xff\xff")
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "invalid_argument", answer["code"])

	status, _ = post(get, "application/json; charset=utf-8", `{"jobId":"j","fromTheFuture":true}`)
	require.Equal(t, http.StatusOK, status)
	status, _ = post(get, "application/proto", "\x0a\x01j\xf8\x07\x01")
	require.Equal(t, http.StatusOK, status)
}

// Every call is counted once under its procedure and code, refused ones
// included, and logged with the ids it names.
func TestMetricsAndLog(t *testing.T) {
	t.Parallel()
	b := setup(t, interceptor.Config{})
	_, err := b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: "job-1"})
	require.NoError(t, err)
	_, err = b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{})
	require.Error(t, err)
	require.NoError(t, watchError(t.Context(), b, &tcoderv1.WatchJobRequest{JobId: "job-2"}))
	require.Eventually(t, func() bool { return strings.Count(b.log.String(), `"msg":"call"`) == 3 }, waitLong, waitTick)

	require.Equal(t, map[string]float64{
		"tcoder_rpc_calls_total code=invalid_argument procedure=/tcoder.v1.JobService/GetJob": 1,
		"tcoder_rpc_calls_total code=ok procedure=/tcoder.v1.JobService/GetJob":               1,
		"tcoder_rpc_calls_total code=ok procedure=/tcoder.v1.JobService/WatchJob":             1,
		"tcoder_rpc_streams_open procedure=/tcoder.v1.JobService/WatchJob":                    0,
	}, samples(t, b.registry))
	require.Contains(t, b.log.String(), `"job_id":"job-1"`)
	require.Contains(t, b.log.String(), `"job_id":"job-2"`)
}

// samples returns the counters and gauges of a registry.
func samples(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetName() + "=" + label.GetValue()
			}
			if m.GetHistogram() == nil {
				values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}

	return values
}

// Tracing is off until it has somewhere to go, and then covers both kinds of call.
func TestTracing(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	b := setup(t, interceptor.Config{TracerProvider: trace.NewTracerProvider(trace.WithSpanProcessor(spans))})
	_, err := b.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: "j"})
	require.NoError(t, err)
	require.NoError(t, watchError(t.Context(), b, &tcoderv1.WatchJobRequest{JobId: "j"}))
	require.Eventually(t, func() bool { return len(spans.Ended()) == 2 }, waitLong, waitTick)
}
