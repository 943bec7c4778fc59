package tcoder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
)

const (
	defaultCallTimeout = 30 * time.Second
	// Joining the parts of a large upload is work of minutes for some stores.
	completeTimeout = 10 * time.Minute
	// How long the object store may take to answer once it has all bytes.
	transferAnswerTimeout = 2 * time.Minute
	// A watch that says nothing for so long is opened again: over HTTP/1.1
	// nothing else tells a quiet server from a dead one.
	defaultWatchIdle = 45 * time.Second
)

// Client talks to one server.
type Client struct {
	uploads tcoderv1connect.UploadServiceClient
	jobs    tcoderv1connect.JobServiceClient
	pool    tcoderv1connect.PoolServiceClient

	transfer  *http.Client
	retry     RetryPolicy
	watchIdle time.Duration
	// reached is set by the first answer of the server: from then on a lost
	// connection is worth waiting for.
	reached atomic.Bool
}

// Option changes how a Client works.
type Option func(*settings)

type settings struct {
	apiKey    string
	api       *http.Client
	transfer  *http.Client
	retry     RetryPolicy
	userAgent string
	watchIdle time.Duration
}

// WithAPIKey sends a key with every call to the server, as a bearer token. It
// is never sent to the object store.
func WithAPIKey(key string) Option {
	return func(s *settings) { s.apiKey = key }
}

// WithHTTPClient sets the client of calls to the server. Its Timeout has to be
// 0, or it cuts watches.
func WithHTTPClient(c *http.Client) Option {
	return func(s *settings) { s.api = c }
}

// WithTransferClient sets the client that moves bytes to and from the object
// store. Its Timeout has to be 0, or it cuts long transfers.
func WithTransferClient(c *http.Client) Option {
	return func(s *settings) { s.transfer = c }
}

// WithRetry replaces the retry policy. Zero fields keep their default.
func WithRetry(p RetryPolicy) Option {
	return func(s *settings) { s.retry = p }
}

// WithUserAgent names the program in the server's logs.
func WithUserAgent(name string) Option {
	return func(s *settings) { s.userAgent = name }
}

// WithWatchIdle sets how long a watch may hear nothing before it opens its
// stream again. Default 45 s.
func WithWatchIdle(d time.Duration) Option {
	return func(s *settings) { s.watchIdle = d }
}

// New returns a client of the server at serverURL, such as
// http://127.0.0.1:8080. It connects to nothing. It fails for a URL that is
// not http or https.
func New(serverURL string, opts ...Option) (*Client, error) {
	base, err := url.Parse(serverURL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("tcoder: server URL %q is not of the form http://host:port", serverURL)
	}
	set := settings{userAgent: "tcoder-go", watchIdle: defaultWatchIdle}
	for _, opt := range opts {
		opt(&set)
	}
	if set.api == nil {
		set.api = &http.Client{Transport: newTransport()}
	}
	if set.transfer == nil {
		transport := newTransport()
		transport.ResponseHeaderTimeout = transferAnswerTimeout
		set.transfer = &http.Client{Transport: transport}
	}
	address := strings.TrimRight(serverURL, "/")
	identify := connect.WithInterceptors(&identity{apiKey: set.apiKey, userAgent: set.userAgent})

	return &Client{
		uploads:   tcoderv1connect.NewUploadServiceClient(set.api, address, identify),
		jobs:      tcoderv1connect.NewJobServiceClient(set.api, address, identify),
		pool:      tcoderv1connect.NewPoolServiceClient(set.api, address, identify),
		transfer:  set.transfer,
		retry:     set.retry.withDefaults(),
		watchIdle: set.watchIdle,
	}, nil
}

// newTransport returns a transport of our own: the default one may have been
// changed by the program, and its idle connections are not ours.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// identity is the interceptor that says who calls.
type identity struct {
	apiKey    string
	userAgent string
}

func (i *identity) set(header http.Header) {
	if i.apiKey != "" {
		header.Set("Authorization", "Bearer "+i.apiKey)
	}
	header.Set("User-Agent", i.userAgent)
}

// WrapUnary implements connect.Interceptor.
func (i *identity) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		i.set(req.Header())

		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (i *identity) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		i.set(conn.RequestHeader())

		return conn
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (i *identity) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// call makes a unary call that is safe to repeat, as all of them are, and
// repeats it while the server can't be reached.
func call[Req, Res any](ctx context.Context, c *Client, timeout time.Duration,
	fn func(context.Context, *Req) (*Res, error), req *Req,
) (*Res, error) {
	retry := c.newRetrier()
	for {
		res, err := callAttempt(ctx, timeout, fn, req)
		if err == nil {
			c.reached.Store(true)

			return res, nil
		}
		if ctx.Err() != nil {
			return nil, contextError(ctx)
		}
		refusal := newError(err)
		if !isTransient(err) {
			if !errors.Is(refusal, ErrUnreachable) {
				c.reached.Store(true)
			}

			return nil, refusal
		}
		if !retry.wait(ctx, refusal.RetryAfter) {
			if ctx.Err() != nil {
				return nil, contextError(ctx)
			}

			return nil, refusal
		}
	}
}

func callAttempt[Req, Res any](ctx context.Context, timeout time.Duration,
	fn func(context.Context, *Req) (*Res, error), req *Req,
) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	return fn(ctx, req)
}

// contextError is the end of the caller's context, as the caller knows it.
func contextError(ctx context.Context) error {
	return fmt.Errorf("tcoder: %w", context.Cause(ctx))
}
