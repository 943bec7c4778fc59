package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
)

const (
	// maxMessageBytes bounds a message of the control plane.
	maxMessageBytes = 16 << 20
	// dialTimeout bounds the time until a connection is there.
	dialTimeout = 10 * time.Second
)

// Why a session ends on this side.
var (
	// errNoAnswer ends a stream on which the control plane has gone quiet.
	errNoAnswer = errors.New("the control plane said nothing for too long")
	// errUnsayable ends one on which the worker would say what no bytes can be made of.
	errUnsayable = errors.New("no bytes can be made of a message")
)

// session is one stream to the control plane, or the calls that stand for one.
// It only moves messages; what they mean is the loop's affair. It ends with the
// stream, for whatever reason.
type session struct {
	// hellos is on which the loop says who this is and what it holds: once for a
	// stream, before every call otherwise.
	hellos chan *tcoderv1.Hello
	out    *outbox
	in     chan *tcoderv1.AttachResponse // every message, before done is closed
	// done is closed when all of the session's goroutines have ended; err then
	// says why the stream ended, nil if the control plane closed it in peace.
	done chan struct{}
	err  error

	calls  bool // it is no stream
	began  time.Time
	cancel context.CancelCauseFunc

	// The loop's notes about it.
	greeted  bool
	welcomed bool
	silentBy time.Time // when to give it up for want of a message
}

// attach starts a session on a connection of its own: a dead one is never met
// again.
func attach(ctx context.Context, client *http.Client, serverURL, token string, calls bool) *session {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{
		hellos: make(chan *tcoderv1.Hello), out: newOutbox(), in: make(chan *tcoderv1.AttachResponse),
		done: make(chan struct{}), calls: calls, began: time.Now(), cancel: cancel,
	}

	pool := tcoderv1connect.NewPoolServiceClient(client, serverURL,
		connect.WithReadMaxBytes(maxMessageBytes), connect.WithInterceptors(bearer(token)))

	go func() {
		defer close(s.done)
		defer client.CloseIdleConnections()
		defer cancel(nil)

		if calls {
			s.err = s.call(ctx, pool)
		} else {
			s.err = s.run(ctx, pool)
		}
	}()

	return s
}

// greeting waits for the loop's word.
func (s *session) greeting(ctx context.Context) (*tcoderv1.Hello, error) {
	select {
	case hello := <-s.hellos:
		return hello, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *session) run(ctx context.Context, pool tcoderv1connect.PoolServiceClient) error {
	hello, err := s.greeting(ctx)
	if err != nil {
		return err
	}

	stream, err := pool.Attach(ctx)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}

	var sending sync.WaitGroup

	sending.Go(func() { s.send(ctx, stream, hello) })

	// Receive knows no context, so this goroutine does nothing else.
	for {
		message, err := stream.Receive()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}

			s.cancel(err)
			sending.Wait()
			_ = stream.CloseResponse() // the stream is over

			if errors.Is(err, io.EOF) {
				return nil
			}

			return err
		}

		select {
		case s.in <- message:
		case <-ctx.Done():
		}
	}
}

type attachStream = connect.BidiStreamForClientSimple[tcoderv1.AttachRequest, tcoderv1.AttachResponse]

// send says hello and then what is put into the outbox, and closes this half
// of the stream when that is closed.
func (s *session) send(ctx context.Context, stream *attachStream, hello *tcoderv1.Hello) {
	message := &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{Hello: hello}}

	for ok := true; ok; message, ok = s.out.next(ctx) {
		if err := stream.Send(message); err != nil {
			if !errors.Is(err, io.EOF) {
				s.cancel(fmt.Errorf("send: %w", orUnsayable(err, message)))
			}

			break // with EOF, Receive tells the reason
		}
	}

	_ = stream.CloseRequest() // it fails if the stream has
}

// orUnsayable prefers it over the error of sending a message that no bytes can be
// made of: Connect's is that of a connection which breaks.
func orUnsayable(err error, message proto.Message) error {
	if _, cause := proto.Marshal(message); cause != nil {
		return fmt.Errorf("%w: %w", errUnsayable, cause)
	}

	return err
}

// bearer sends the worker's credential.
type bearer string

// WrapUnary adds the credential.
func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if b != "" {
			request.Header().Set("Authorization", "Bearer "+string(b))
		}

		return next(ctx, request)
	}
}

// WrapStreamingClient adds the credential.
func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if b != "" {
			conn.RequestHeader().Set("Authorization", "Bearer "+string(b))
		}

		return conn
	}
}

// WrapStreamingHandler changes nothing: a worker serves nothing.
func (bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// newControlClient returns a client for one session. Streams need HTTP/2, with
// or without TLS as the URL says, and pings that find a dead peer behind a live
// connection. Calls are for proxies, which all know HTTP/1.1.
func newControlClient(cfg Config, serverURL string, calls bool) *http.Client {
	protocols := new(http.Protocols)

	switch plain := strings.HasPrefix(serverURL, "http://"); {
	case plain && calls:
		protocols.SetHTTP1(true)
	case plain:
		protocols.SetUnencryptedHTTP2(true)
	default:
		protocols.SetHTTP1(calls)
		protocols.SetHTTP2(true)
	}

	return &http.Client{Transport: &http.Transport{
		DialContext:         cfg.Dial,
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           protocols,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}}
}
