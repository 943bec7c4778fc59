package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
)

// maxMessageBytes bounds a message of the control plane.
const maxMessageBytes = 16 << 20

// errNoAnswer ends a stream on which the control plane has gone quiet.
var errNoAnswer = errors.New("the control plane said nothing for too long")

// session is one stream to the control plane. It only moves messages; what
// they mean is the loop's affair. It ends with the stream, for whatever reason.
type session struct {
	out *outbox
	in  chan *tcoderv1.AttachResponse // every message, before done is closed
	// done is closed when all of the session's goroutines have ended; err then
	// says why the stream ended, nil if the control plane closed it in peace.
	done chan struct{}
	err  error

	cancel context.CancelCauseFunc

	// The loop's notes about it.
	welcomed bool
	silentBy time.Time // when to give it up for want of a message
}

// attach starts a session on a connection of its own: a dead one is never met
// again.
func attach(ctx context.Context, client *http.Client, serverURL, token string) *session {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{
		out: newOutbox(), in: make(chan *tcoderv1.AttachResponse), done: make(chan struct{}), cancel: cancel,
	}

	pool := tcoderv1connect.NewPoolServiceClient(client, serverURL,
		connect.WithReadMaxBytes(maxMessageBytes), connect.WithInterceptors(bearer(token)))

	go func() {
		defer close(s.done)
		defer client.CloseIdleConnections()
		defer cancel(nil)

		s.err = s.run(ctx, pool)
	}()

	return s
}

func (s *session) run(ctx context.Context, pool tcoderv1connect.PoolServiceClient) error {
	stream, err := pool.Attach(ctx)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}

	var sending sync.WaitGroup

	sending.Go(func() { s.send(ctx, stream) })

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

// send sends what is put into the outbox, and closes this half of the stream
// when that is closed.
func (s *session) send(ctx context.Context, stream *attachStream) {
	for {
		message, ok := s.out.next(ctx)
		if !ok {
			break
		}

		if err := stream.Send(message); err != nil {
			if !errors.Is(err, io.EOF) {
				s.cancel(fmt.Errorf("send: %w", err))
			}

			break // with EOF, Receive tells the reason
		}
	}

	_ = stream.CloseRequest() // it fails if the stream has
}

// bearer sends the worker's credential with the stream.
type bearer string

// WrapUnary changes nothing: a worker makes no unary call.
func (bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

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

// newControlClient returns a client for streams: HTTP/2 with or without TLS, as
// the URL says, with pings that find a dead peer behind a live connection.
func newControlClient(serverURL string) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)

	if strings.HasPrefix(serverURL, "http://") {
		protocols = new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
	}

	return &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           protocols,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}}
}

// incompatible tells whether the control plane refused this worker for good.
func incompatible(err error) bool {
	var refused *connect.Error
	if !errors.As(err, &refused) || refused.Code() != connect.CodeFailedPrecondition {
		return false
	}

	for _, detail := range refused.Details() {
		if value, err := detail.Value(); err == nil {
			if detail, ok := value.(*tcoderv1.ErrorDetail); ok {
				return detail.GetReason() == tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE
			}
		}
	}

	return false
}
