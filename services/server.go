package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// Config says where a server listens and whom it serves.
type Config struct {
	// Listen is the address, host:port. Not used if Deps.Listener is set.
	Listen string
	// AllowedHosts are names that the Host header may carry beside the
	// listener's own, localhost and IP addresses; "*" allows all.
	AllowedHosts []string
	// AllowedOrigins are the origins, such as https://app.example.com, whose
	// pages may call this server beside its own; "*" allows all.
	AllowedOrigins []string
	// APIKeys maps each key to its project. None: no key is asked for, which
	// New refuses unless the server listens on loopback only.
	APIKeys map[string]string
	// WorkerToken is what workers send to attach. It must be set if there are
	// keys and workers.
	WorkerToken string
	// AllowUnauthenticated lets a server without keys listen on other
	// addresses than loopback: something in front of it keeps strangers out.
	AllowUnauthenticated bool
	// ShutdownTimeout is how long calls may take to end when the server stops
	// (0: 15 s). Then they are cut.
	ShutdownTimeout time.Duration
	// BodyTimeout is how long a client may take to send what a call says (0:
	// 30 s). A worker's stream is bounded by its heartbeats instead.
	BodyTimeout time.Duration
	// TracerProvider turns tracing on.
	TracerProvider trace.TracerProvider
}

// Pool is PoolService. It mounts itself, because its streams need the HTTP
// server's help.
type Pool interface {
	Handler(options ...connect.HandlerOption) (string, http.Handler)
}

// Loop is work that goes on while the server runs. Run returns nil after ctx
// has ended and everything it started has; an error stops the server.
type Loop interface {
	Run(ctx context.Context) error
}

// Deps are what a Server puts together.
type Deps struct {
	Uploads tcoderv1connect.UploadServiceHandler
	Jobs    tcoderv1connect.JobServiceHandler
	Pool    Pool
	// Loops run alongside: the pool's dispatcher, the sweeper, the autoscaler.
	Loops []Loop
	// Ready reports whether the state store answers.
	Ready func(ctx context.Context) error
	// Collectors are metrics of others to serve.
	Collectors []prometheus.Collector
	// Listener replaces Config.Listen. The server closes it.
	Listener net.Listener
	Log      *slog.Logger
}

const (
	defaultShutdownTimeout = 15 * time.Second
	defaultBodyTimeout     = 30 * time.Second
	readHeaderTimeout      = 5 * time.Second
	idleTimeout            = 2 * time.Minute
	readyTimeout           = 2 * time.Second
	maxHeaderBytes         = 64 << 10
	// maxRequestBytes fits the part list of the largest upload,
	// maxReportBytes the result of an encode of many hours.
	maxRequestBytes = 4 << 20
	maxReportBytes  = 16 << 20
	// maxOpenBytes fits any question that needs no credential.
	maxOpenBytes = 64 << 10
	// completeTimeout is for CompleteUpload, which waits while the object
	// store joins thousands of parts.
	completeTimeout = 10 * time.Minute
	// syncTimeout is for Sync, which may wait for half a minute by itself.
	syncTimeout = 45 * time.Second
)

// Server is the control plane's HTTP server with its loops.
type Server struct {
	cfg     Config
	deps    Deps
	chain   *interceptor.Chain
	handler http.Handler
	calls   *inFlight
	// draining is closed when the server begins to stop.
	draining chan struct{}
	serving  chan struct{}
	addr     net.Addr // valid once serving is closed
}

// New returns a server. Errors: an open server on a public address, origins
// that aren't, metrics of the same name.
func New(cfg Config, deps Deps) (*Server, error) {
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = defaultShutdownTimeout
	}
	if cfg.BodyTimeout == 0 {
		cfg.BodyTimeout = defaultBodyTimeout
	}
	address := cfg.Listen
	if deps.Listener != nil {
		address = deps.Listener.Addr().String()
	}
	if len(cfg.APIKeys) == 0 && !cfg.AllowUnauthenticated && !loopback(address) {
		return nil, fmt.Errorf("anyone who reaches %s could use this server: set API keys, or listen on 127.0.0.1", address)
	}
	registry := prometheus.NewRegistry()
	own := []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, c := range append(own, deps.Collectors...) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	chain, err := interceptor.New(interceptor.Config{
		APIKeys:     cfg.APIKeys,
		WorkerToken: cfg.WorkerToken,
		UnaryTimeouts: map[string]time.Duration{
			tcoderv1connect.UploadServiceCompleteUploadProcedure: completeTimeout,
			tcoderv1connect.PoolServiceSyncProcedure:             syncTimeout,
		},
		TracerProvider: cfg.TracerProvider,
		Registerer:     registry,
		Logger:         deps.Log,
	})
	if err != nil {
		return nil, err
	}
	guard, err := newGuard(address, cfg.AllowedHosts, cfg.AllowedOrigins, chain.WriteError)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:      cfg,
		deps:     deps,
		chain:    chain,
		calls:    &inFlight{},
		draining: make(chan struct{}),
		serving:  make(chan struct{}),
	}
	s.handler = s.routes(registry, guard)

	return s, nil
}

// routes lays out the one port.
func (s *Server) routes(registry *prometheus.Registry, guard *guard) http.Handler {
	api := http.NewServeMux()
	options := s.chain.Options(maxRequestBytes)
	api.Handle(tcoderv1connect.NewUploadServiceHandler(s.deps.Uploads, options...))
	api.Handle(tcoderv1connect.NewJobServiceHandler(s.deps.Jobs, options...))
	api.Handle(s.deps.Pool.Handler(s.chain.Options(maxReportBytes)...))
	open := s.chain.Options(maxOpenBytes)
	api.Handle(grpchealth.NewHandler(&health{server: s}, open...))
	reflector := grpcreflect.NewStaticReflector(append(serviceNames(), grpchealth.HealthV1ServiceName)...)
	api.Handle(grpcreflect.NewHandlerV1(reflector, open...))
	api.Handle(grpcreflect.NewHandlerV1Alpha(reflector, open...))
	api.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	}))

	root := http.NewServeMux()
	// Probes come by any name or address, and tell nothing worth guarding.
	root.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, http.StatusOK, "ok") })
	root.HandleFunc("GET /readyz", s.serveReady)
	root.Handle("/", guard.protect(timely(bounded(api, watchWriteTimeout,
		tcoderv1connect.JobServiceWatchJobProcedure, tcoderv1connect.PoolServiceWatchPoolProcedure),
		s.cfg.BodyTimeout, tcoderv1connect.PoolServiceAttachProcedure)))

	return interceptor.WithRequestID(s.calls.count(root))
}

func serviceNames() []string {
	return []string{
		tcoderv1connect.UploadServiceName, tcoderv1connect.JobServiceName, tcoderv1connect.PoolServiceName,
	}
}

// Serving is closed once the server accepts connections at Addr.
func (s *Server) Serving() <-chan struct{} { return s.serving }

// Addr is where the server listens; valid once Serving is closed.
func (s *Server) Addr() net.Addr { return s.addr }

// Run listens, serves and runs the loops until ctx ends, then stops: streams
// are told to go elsewhere, calls may end within the shutdown timeout, and
// what is left is cut. It returns when everything has ended: nil, or what
// failed. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	listener := s.deps.Listener
	if listener == nil {
		var err error
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	server := s.httpServer(ctx)
	s.addr = listener.Addr()
	close(s.serving)
	s.deps.Log.InfoContext(ctx, "serving", "address", s.addr.String())

	group, ctx := errgroup.WithContext(ctx)
	for _, loop := range s.deps.Loops {
		group.Go(func() error {
			if err := loop.Run(ctx); err != nil {
				return fmt.Errorf("%T: %w", loop, err)
			}
			if ctx.Err() == nil {
				return fmt.Errorf("%T ended by itself", loop)
			}

			return nil
		})
	}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}

		return nil
	})
	group.Go(func() error {
		<-ctx.Done()

		return s.shutdown(context.WithoutCancel(ctx), server)
	})

	return group.Wait()
}

func (s *Server) httpServer(ctx context.Context) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)

	return &http.Server{
		Handler:   s.handler,
		Protocols: protocols,
		// No read or write timeout: it would cut every stream at that age. What
		// calls say is bounded by timely, what they do by the chain, streams by their
		// heartbeats.
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 1000,
			// A client allocates a buffer of this size for each stream.
			MaxReadFrameSize: 16 << 10,
			// A peer that vanished without a word is noticed by these.
			SendPingTimeout: 10 * time.Second,
			PingTimeout:     5 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			// A call outlives the order to stop: it is drained, then cut.
			return interceptor.WithDraining(context.WithoutCancel(ctx), s.draining)
		},
	}
}

func (s *Server) shutdown(ctx context.Context, server *http.Server) error {
	s.deps.Log.InfoContext(ctx, "stopping")
	close(s.draining)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		s.deps.Log.WarnContext(ctx, "calls were cut", "error", err)
		// Closing cuts the connections, which ends the contexts of the calls.
		if err := server.Close(); err != nil {
			s.deps.Log.WarnContext(ctx, "close", "error", err)
		}
	}
	// Shutdown waits for connections; handlers may still be on their way out.
	<-s.calls.idle()

	return nil
}

// serveReady answers whether this replica should get calls.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := s.ready(r.Context()); err != nil {
		s.answer(w, http.StatusServiceUnavailable, err.Error())

		return
	}
	s.answer(w, http.StatusOK, "ok")
}

// ready says in safe words why the server isn't ready, nil if it is.
func (s *Server) ready(ctx context.Context) error {
	select {
	case <-s.draining:
		return errors.New("draining")
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := s.deps.Ready(ctx); err != nil {
		s.deps.Log.WarnContext(ctx, "not ready", "error", err)

		return errors.New("the state store can't be reached")
	}

	return nil
}

func (s *Server) answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write([]byte(text + "\n")); err != nil {
		s.deps.Log.Debug("answer probe", "error", err)
	}
}

// health is the gRPC health service.
type health struct{ server *Server }

// Check implements grpchealth.Checker.
func (h *health) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	known := req.Service == ""
	for _, name := range serviceNames() {
		known = known || req.Service == name
	}
	if !known {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such service"))
	}
	if err := h.server.ready(ctx); err != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil //nolint:nilerr // the status is the answer
	}

	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
