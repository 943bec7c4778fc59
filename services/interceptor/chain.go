package interceptor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Config is what the chain can be told.
type Config struct {
	// APIKeys maps each key to the project it belongs to. None: everything
	// but Attach is open to whoever reaches the server.
	APIKeys map[string]string
	// WorkerToken is what workers send to Attach. Empty: Attach is open, too,
	// if there are no keys, and shut if there are.
	WorkerToken string
	// UnaryTimeout bounds every unary call, 0 means 30 s.
	UnaryTimeout time.Duration
	// UnaryTimeouts are the bounds of procedures that need others.
	UnaryTimeouts map[string]time.Duration
	// TracerProvider turns tracing on.
	TracerProvider trace.TracerProvider
	// Registerer takes the metrics of calls; nil keeps none.
	Registerer prometheus.Registerer
	// Logger is where calls are logged.
	Logger *slog.Logger
}

const (
	defaultUnaryTimeout = 30 * time.Second
	// compressMinBytes is the size of a message from which it is compressed. To
	// prepare a compressor takes longer than to send what is smaller.
	compressMinBytes = 4 << 10
)

// Chain is the way of every call to its handler.
type Chain struct {
	log          *slog.Logger
	gate         *gate
	interceptors []connect.Interceptor
	translator   *translator
	errorWriter  *connect.ErrorWriter
}

// New returns a chain. Errors: metrics that are registered already, rules in
// the API that don't compile.
func New(cfg Config) (*Chain, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("compile validation: %w", err)
	}
	metrics, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	c := &Chain{
		log:         cfg.Logger,
		translator:  newTranslator(cfg.Logger),
		errorWriter: connect.NewErrorWriter(),
	}
	observer := &observer{log: cfg.Logger, metrics: metrics}
	c.gate = newGate(cfg, observer, c.translator)
	if cfg.TracerProvider != nil {
		tracing, err := otelconnect.NewInterceptor(
			otelconnect.WithTracerProvider(cfg.TracerProvider), otelconnect.WithoutMetrics())
		if err != nil {
			return nil, fmt.Errorf("tracing: %w", err)
		}
		c.interceptors = append(c.interceptors, tracing)
	}
	c.interceptors = append(c.interceptors,
		observer,
		deadline(cfg.UnaryTimeout, cfg.UnaryTimeouts),
		c.translator.intercept(),
		recoverPanic(cfg.Logger),
		&validation{validator: validator},
	)

	return c, nil
}

// Options returns the options of a handler whose calls pass the chain. A
// message of more than readMaxBytes is refused.
func (c *Chain) Options(readMaxBytes int) []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithRequestGate(c.gate.check),
		connect.WithInterceptors(c.interceptors...),
		connect.WithCompressMinBytes(compressMinBytes),
		connect.WithReadMaxBytes(readMaxBytes),
		connect.WithCodec(binaryCodec{}),
		connect.WithCodec(jsonCodec{name: "json"}),
		connect.WithCodec(jsonCodec{name: "json; charset=utf-8"}),
	}
}

// around is an interceptor that treats unary and streaming calls alike and
// looks at no message.
type around func(ctx context.Context, spec connect.Spec, next func(context.Context) error) error

// WrapUnary implements connect.Interceptor.
func (a around) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		var res connect.AnyResponse
		err := a(ctx, req.Spec(), func(ctx context.Context) error {
			var err error
			res, err = next(ctx, req)

			return err
		})
		if err != nil {
			return nil, err
		}

		return res, nil
	}
}

// WrapStreamingClient implements connect.Interceptor; the chain is for servers.
func (a around) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (a around) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return a(ctx, conn.Spec(), func(ctx context.Context) error { return next(ctx, conn) })
	}
}

// deadline bounds unary calls. Streams live as long as both sides want.
func deadline(usual time.Duration, others map[string]time.Duration) around {
	if usual == 0 {
		usual = defaultUnaryTimeout
	}

	return func(ctx context.Context, spec connect.Spec, next func(context.Context) error) error {
		if spec.StreamType != connect.StreamTypeUnary {
			return next(ctx)
		}
		timeout := usual
		if other, ok := others[spec.Procedure]; ok {
			timeout = other
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()

		return next(ctx)
	}
}
