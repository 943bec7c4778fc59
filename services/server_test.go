package services_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/pool"
)

// answer is what a plain HTTP request got.
type answer struct {
	status int
	proto  string
	header http.Header
	body   string
}

// do sends a plain HTTP request.
func (p *plane) do(method, path, body string, header map[string]string) answer {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	require.NoError(p.t, err)
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	res, err := p.h1.Do(req)
	require.NoError(p.t, err)
	raw, err := io.ReadAll(res.Body)
	require.NoError(p.t, err)
	require.NoError(p.t, res.Body.Close())

	return answer{res.StatusCode, res.Proto, res.Header, string(raw)}
}

const presets = "/tcoder.v1.JobService/ListPresets"

func asJSON(more map[string]string) map[string]string {
	header := map[string]string{"Content-Type": "application/json"}
	maps.Copy(header, more)

	return header
}

// curl's way: JSON by POST, and by GET what has no side effect.
func TestPlainJSON(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	res := p.do(http.MethodPost, "/tcoder.v1.UploadService/CreateUpload", `{"filename":"clip.mp4","sizeBytes":5}`, asJSON(nil))
	require.Equal(t, http.StatusOK, res.status, res.body)
	require.Equal(t, "HTTP/1.1", res.proto)
	var opened struct {
		Upload struct {
			JobID string `json:"jobId"`
			State string `json:"state"`
		} `json:"upload"`
		Put struct {
			Method string `json:"method"`
		} `json:"put"`
	}
	require.NoError(t, json.Unmarshal([]byte(res.body), &opened))
	require.Equal(t, "UPLOAD_STATE_OPEN", opened.Upload.State)
	require.Equal(t, http.MethodPut, opened.Put.Method)

	res = p.do(http.MethodGet, `/tcoder.v1.JobService/GetJob?connect=v1&encoding=json&message=%7B%22jobId%22%3A%22`+opened.Upload.JobID+`%22%7D`, "", nil)
	require.Equal(t, http.StatusOK, res.status, res.body)
	require.Contains(t, res.body, "JOB_STATE_UPLOADING")
	res = p.do(http.MethodPost, "/tcoder.v1.JobService/GetJob", `{"jobId":"x"}`, asJSON(nil))
	require.Equal(t, http.StatusNotFound, res.status)
	var failure struct {
		Code    string `json:"code"`
		Details []struct {
			Type  string `json:"type"`
			Debug struct {
				Reason string `json:"reason"`
			} `json:"debug"`
		} `json:"details"`
	}
	require.NoError(t, json.Unmarshal([]byte(res.body), &failure))
	require.Equal(t, "not_found", failure.Code)
	require.Equal(t, "tcoder.v1.ErrorDetail", failure.Details[0].Type)
	require.Equal(t, "ERROR_REASON_JOB_NOT_FOUND", failure.Details[0].Debug.Reason)
}

// Every protocol and both versions of HTTP carry unary calls and server
// streams; the bidi stream of workers needs HTTP/2.
func TestProtocols(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	h2 := p.h2
	for protocol, opts := range protocols() {
		for version, client := range map[string]*http.Client{"1": p.h1, "2": h2} {
			if protocol == "grpc" && version == "1" {
				continue
			}
			p.h2 = client
			p.connect(opts...)
			id := p.newJob().GetId()
			w := p.watch(id, 0)
			require.NotNil(t, w.next())
			_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
			require.NoError(t, err)
			require.NoError(t, w.err(), "%s over HTTP/%s", protocol, version)
		}
		if protocol == "grpc-web" {
			continue
		}
		p.h2 = h2
		p.connect(opts...)
		stream, err := p.pool.Attach(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{
			Hello: &tcoderv1.Hello{WorkerId: "w-" + protocol, Slots: 1},
		}}))
		res, err := stream.Receive()
		require.NoError(t, err, protocol)
		require.NotNil(t, res.GetWelcome())
		require.NoError(t, stream.CloseRequest())
		require.NoError(t, stream.CloseResponse())
	}
}

// grpcurl's way: both versions of reflection describe the API.
func TestReflection(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	client := grpcreflect.NewClient(p.h2, p.url, connect.WithGRPC())
	stream := client.NewStream(t.Context())
	names, err := stream.ListServices()
	require.NoError(t, err)
	require.Subset(t, names, []protoreflect.FullName{
		"tcoder.v1.UploadService", "tcoder.v1.JobService", "tcoder.v1.PoolService", "grpc.health.v1.Health",
	})
	files, err := stream.FileContainingSymbol("tcoder.v1.JobService")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	_, err = stream.Close()
	require.NoError(t, err)
	res := p.do(http.MethodOptions, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "", nil)
	require.Equal(t, http.StatusHTTPVersionNotSupported, res.status, "it is there, for HTTP/2")
}

// A replica is ready while its Redis answers, and says so to every kind of
// probe; alive it is anyway.
func TestHealth(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{})
	address := redis.URL()
	p := start(t, options{redis: address, server: services.Config{APIKeys: map[string]string{"k": "p"}}})
	health := func(service string) (int, string) {
		res := p.do(http.MethodPost, "/grpc.health.v1.Health/Check", `{"service":"`+service+`"}`, asJSON(nil))

		return res.status, res.body
	}
	expect := func(ready int, status string) {
		t.Helper()
		res := p.do(http.MethodGet, "/healthz", "", map[string]string{"Host": "probe.internal"})
		require.Equal(t, http.StatusOK, res.status)
		res = p.do(http.MethodGet, "/readyz", "", map[string]string{"Host": "probe.internal"})
		require.Equal(t, ready, res.status)
		require.NotContains(t, res.body, "redis")
		for _, service := range []string{"", "tcoder.v1.JobService"} {
			code, got := health(service)
			require.Equal(t, http.StatusOK, code)
			require.Contains(t, got, `"SERVING_STATUS_`+status+`"`)
		}
	}
	expect(http.StatusOK, "SERVING")
	code, _ := health("nobody.Service")
	require.Equal(t, http.StatusNotFound, code)
	redis.Kill()
	expect(http.StatusServiceUnavailable, "NOT_SERVING")
	p.connect(bearer("k"))
	_, err := p.job.GetJob(t.Context(), &tcoderv1.GetJobRequest{JobId: "x"})
	refused(t, err, connect.CodeUnavailable, tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE)
	require.NotContains(t, err.Error(), address)
	redis.Restart()
	expect(http.StatusOK, "SERVING")
}

// Metrics of calls, of the process and of the other parts are served.
func TestMetrics(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	_, err := p.job.ListPresets(t.Context(), &tcoderv1.ListPresetsRequest{})
	require.NoError(t, err)
	res := p.do(http.MethodGet, "/metrics", "", nil)
	require.Equal(t, http.StatusOK, res.status)
	require.Contains(t, res.body, `tcoder_rpc_calls_total{code="ok",procedure="/tcoder.v1.JobService/ListPresets"} 1`)
	require.Contains(t, res.body, "go_goroutines")
}

// A page that isn't on the list, and a name that isn't the server's, get
// nothing but a typed refusal; listed pages get what browsers ask for.
func TestForeignPages(t *testing.T) {
	t.Parallel()
	p := start(t, options{server: services.Config{
		AllowedOrigins: []string{"https://app.example.com"}, AllowedHosts: []string{"tcoder.example.com"},
	}})
	_, port, err := net.SplitHostPort(p.addr)
	require.NoError(t, err)
	tests := map[string]struct {
		header map[string]string
		ok     bool
	}{
		"no page":              {nil, true},
		"localhost":            {map[string]string{"Host": "localhost:" + port}, true},
		"other case, dot":      {map[string]string{"Host": "LOCALHOST."}, true},
		"any address":          {map[string]string{"Host": "[::1]:" + port}, true},
		"configured name":      {map[string]string{"Host": "tcoder.example.com"}, true},
		"rebound name":         {map[string]string{"Host": "evil.example:" + port}, false},
		"rebound, own page":    {map[string]string{"Host": "evil.example:" + port, "Origin": "http://evil.example:" + port}, false},
		"look-alike":           {map[string]string{"Host": "localhost.evil.example"}, false},
		"listed page":          {map[string]string{"Origin": "https://app.example.com"}, true},
		"own page":             {map[string]string{"Origin": p.url}, true},
		"page of another port": {map[string]string{"Origin": "http://127.0.0.1:1"}, false},
		"foreign page":         {map[string]string{"Origin": "https://evil.example"}, false},
		"other scheme":         {map[string]string{"Origin": "http://app.example.com"}, false},
		"longer name":          {map[string]string{"Origin": "https://app.example.com.evil.example"}, false},
		"opaque page":          {map[string]string{"Origin": "null"}, false},
	}
	for name, tt := range tests {
		for _, contentType := range []string{"application/json", "text/plain", "application/grpc-web+proto"} {
			header := asJSON(tt.header)
			header["Content-Type"] = contentType
			res := p.do(http.MethodPost, presets, "{}", header)
			if tt.ok {
				require.NotEqual(t, http.StatusForbidden, res.status, name)

				continue
			}
			require.Equal(t, http.StatusForbidden, res.status, name)
			require.Contains(t, res.body, "permission_denied")
			require.Contains(t, res.body, "ERROR_REASON_ORIGIN_NOT_ALLOWED")
			require.Empty(t, res.header.Get("Access-Control-Allow-Origin"))
		}
		res := p.do(http.MethodGet, "/metrics", "", tt.header)
		require.Equal(t, tt.ok, res.status == http.StatusOK, name)
	}
}

// What a browser asks before a call of a listed page, and what it lets the
// page read after it.
func TestCORS(t *testing.T) {
	t.Parallel()
	p := start(t, options{server: services.Config{AllowedOrigins: []string{"https://app.example.com"}}})
	preflight := map[string]string{
		"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST",
		"Access-Control-Request-Headers": "authorization,connect-protocol-version,content-type", "Access-Control-Request-Private-Network": "true",
	}
	res := p.do(http.MethodOptions, presets, "", preflight)
	require.Equal(t, http.StatusNoContent, res.status)
	require.Equal(t, "https://app.example.com", res.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, res.header.Get("Access-Control-Allow-Methods"), "POST")
	for _, h := range []string{"Authorization", "Connect-Protocol-Version", "Content-Type", "X-Grpc-Web"} {
		require.Contains(t, res.header.Get("Access-Control-Allow-Headers"), h)
	}
	require.Equal(t, "true", res.header.Get("Access-Control-Allow-Private-Network"))
	require.Contains(t, res.header.Values("Vary"), "Origin")
	require.Empty(t, res.header.Get("Access-Control-Allow-Credentials"))

	res = p.do(http.MethodPost, presets, "{}", asJSON(map[string]string{"Origin": "https://app.example.com"}))
	require.Equal(t, http.StatusOK, res.status)
	require.Contains(t, res.header.Get("Access-Control-Expose-Headers"), "Grpc-Status-Details-Bin")
	require.Contains(t, res.header.Get("Access-Control-Expose-Headers"), "X-Request-ID")
	require.Contains(t, res.header.Get("Access-Control-Expose-Headers"), "Retry-After")
	preflight["Origin"] = "https://evil.example"
	res = p.do(http.MethodOptions, presets, "", preflight)
	require.Equal(t, http.StatusForbidden, res.status)
}

// A server without keys serves its own machine, or whoever the operator says;
// what can't be right is refused before it listens.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	deps := services.Deps{
		Uploads: tcoderv1connect.UnimplementedUploadServiceHandler{}, Jobs: tcoderv1connect.UnimplementedJobServiceHandler{},
		Pool: pool.New(pool.Config{}, pool.Deps{}), Log: slog.New(slog.DiscardHandler),
	}
	keys := map[string]string{"k": "p"}
	for name, tt := range map[string]struct {
		cfg services.Config
		ok  bool
	}{
		"loopback":         {services.Config{Listen: "127.0.0.1:0"}, true},
		"localhost":        {services.Config{Listen: "localhost:0"}, true},
		"all addresses":    {services.Config{Listen: ":0"}, false},
		"public":           {services.Config{Listen: "192.0.2.1:80"}, false},
		"public with keys": {services.Config{Listen: "192.0.2.1:80", APIKeys: keys}, true},
		"public on demand": {services.Config{Listen: ":0", AllowUnauthenticated: true}, true},
		"bad origin":       {services.Config{Listen: "127.0.0.1:0", AllowedOrigins: []string{"app.example.com"}}, false},
		"origin with path": {services.Config{Listen: "127.0.0.1:0", AllowedOrigins: []string{"https://app.example.com/"}}, false},
	} {
		_, err := services.New(tt.cfg, deps)
		require.Equal(t, tt.ok, err == nil, "%s: %v", name, err)
	}
}

// slow holds GetJob until it is let go.
type slow struct {
	tcoderv1connect.JobServiceHandler

	entered chan struct{}
	release chan struct{}
	ended   atomic.Bool
}

func (s *slow) GetJob(ctx context.Context, _ *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
	defer s.ended.Store(true)
	close(s.entered)
	select {
	case <-s.release:
		return &tcoderv1.GetJobResponse{Job: &tcoderv1.Job{Id: "done"}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func slowly() (*slow, options) {
	s := &slow{entered: make(chan struct{}), release: make(chan struct{})}

	return s, options{wrap: func(h tcoderv1connect.JobServiceHandler) tcoderv1connect.JobServiceHandler {
		s.JobServiceHandler = h

		return s
	}}
}

// A server that stops lets a call end, tells workers to attach elsewhere, and
// takes nothing new.
func TestShutdownDrains(t *testing.T) {
	t.Parallel()
	s, o := slowly()
	p := start(t, o)
	worker, err := p.pool.Attach(t.Context())
	require.NoError(t, err)
	require.NoError(t, worker.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{Hello: &tcoderv1.Hello{WorkerId: "w", Slots: 1}}}))
	_, err = worker.Receive()
	require.NoError(t, err)
	answered := make(chan error, 1)
	go func() {
		_, err := p.job.GetJob(context.WithoutCancel(t.Context()), &tcoderv1.GetJobRequest{JobId: "j"})
		answered <- err
	}()
	<-s.entered
	p.cancel()
	_, err = worker.Receive()
	refused(t, err, connect.CodeUnavailable, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING)
	require.NoError(t, worker.CloseResponse())
	require.Eventually(t, func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.addr)
		if err == nil {
			_ = conn.Close()
		}

		return err != nil
	}, patience, tick)
	close(s.release)
	require.NoError(t, <-answered)
	require.NoError(t, p.stop())
}

// A call that doesn't end is cut when its time is up, and is over before Run
// returns.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	s, o := slowly()
	o.server.ShutdownTimeout = 50 * time.Millisecond
	p := start(t, o)
	answered := make(chan error, 1)
	go func() {
		_, err := p.job.GetJob(context.WithoutCancel(t.Context()), &tcoderv1.GetJobRequest{JobId: "j"})
		answered <- err
	}()
	<-s.entered
	began := time.Now()
	require.NoError(t, p.stop())
	require.Less(t, time.Since(began), patience)
	require.True(t, s.ended.Load())
	require.Error(t, <-answered)
}

// loop is a loop that ends as told.
type loop struct{ err chan error }

func (l loop) Run(ctx context.Context) error {
	select {
	case err := <-l.err:
		return err
	case <-ctx.Done():
		return nil
	}
}

// A loop that fails, or ends before its time, stops the server, which says why.
func TestLoops(t *testing.T) {
	t.Parallel()
	fault := errors.New("no leader")
	for _, err := range []error{fault, nil} {
		l := loop{err: make(chan error, 1)}
		p := start(t, options{loops: []services.Loop{l}})
		l.err <- err
		<-p.done
		if err != nil {
			require.ErrorIs(t, p.err, fault)
		} else {
			require.ErrorContains(t, p.err, "ended by itself")
		}
		p.err = nil
	}
}

// A peer that opens a connection and says nothing is let go of.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.addr)
	require.NoError(t, err)
	_, err = conn.Write([]byte("POST / HTTP/1.1\r\nHost: localhost\r\n"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err = bufio.NewReader(conn).ReadByte()
	require.Error(t, err)
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the server still waits")
	require.NoError(t, conn.Close())
}
