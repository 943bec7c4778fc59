package worker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/memhttp"
)

// patience is how long a test waits for what must come; in a synctest bubble it
// costs nothing.
const patience = time.Minute

// plane is a control plane that speaks the real protocol over HTTP/2 and does
// what the test says: in memory, for use in a synctest bubble, or on a port.
type plane struct {
	tcoderv1connect.UnimplementedPoolServiceHandler

	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	streams chan *planeStream
	settle  func() // waits for the consequences of a message

	mu     sync.Mutex
	away   bool // connections are refused
	token  string
	dialed []time.Time
}

// planeStream is the control plane's end of one stream.
type planeStream struct {
	plane *plane

	in  chan *tcoderv1.AttachRequest // closed when the worker has hung up
	out chan *tcoderv1.AttachResponse
	end chan error
}

func newPlane(t *testing.T) *plane {
	t.Helper()

	network := memhttp.New()
	listener, err := network.Listen("plane")
	require.NoError(t, err)

	p := servePlane(t, listener, synctest.Wait)
	p.dial = network.Dialer("worker")

	return p
}

func servePlane(t *testing.T, listener net.Listener, settle func()) *plane {
	t.Helper()

	p := &plane{streams: make(chan *planeStream, 100), settle: settle}
	mux := http.NewServeMux()
	mux.Handle(tcoderv1connect.NewPoolServiceHandler(p))

	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)

	server := &http.Server{Handler: mux, Protocols: protocols, ReadHeaderTimeout: time.Minute}

	var serving sync.WaitGroup

	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()

		serving.Wait()
	})

	return p
}

// Attach gives the stream to the test.
func (p *plane) Attach(
	ctx context.Context, stream *connect.BidiStream[tcoderv1.AttachRequest, tcoderv1.AttachResponse],
) error {
	s := &planeStream{
		plane: p,

		in:  make(chan *tcoderv1.AttachRequest, 1000),
		out: make(chan *tcoderv1.AttachResponse, 100),
		end: make(chan error, 1),
	}

	p.mu.Lock()
	p.token = stream.RequestHeader().Get("Authorization")
	p.mu.Unlock()

	go func() {
		defer close(s.in)

		for {
			message, err := stream.Receive()
			if err != nil {
				return
			}

			s.in <- message
		}
	}()

	p.streams <- s

	for {
		select {
		case message := <-s.out:
			if err := stream.Send(message); err != nil {
				return err
			}
		case err := <-s.end:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect dials the plane, in memory.
func (p *plane) connect(ctx context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	p.dialed = append(p.dialed, time.Now())
	away := p.away
	p.mu.Unlock()

	if away {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
	}

	return p.dial(ctx, network, address)
}

func (p *plane) leave(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.away = away
}

func (p *plane) dials() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()

	return append([]time.Time(nil), p.dialed...)
}

// attached waits for a stream, and returns it with its Hello.
func (p *plane) attached(t *testing.T) (*planeStream, *tcoderv1.Hello) {
	t.Helper()

	select {
	case s := <-p.streams:
		hello := s.next(t).GetHello()
		require.NotNil(t, hello, "Hello comes first")

		return s, hello
	case <-time.After(patience):
		require.FailNow(t, "no stream came")

		return nil, nil
	}
}

// welcomed is attached, and answers that all is still so.
func (p *plane) welcomed(t *testing.T, welcome *tcoderv1.Welcome) (*planeStream, *tcoderv1.Hello) {
	t.Helper()

	s, hello := p.attached(t)
	if welcome.GetHeartbeatInterval() == nil {
		welcome.HeartbeatInterval = durationpb.New(5 * time.Second)
	}

	s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Welcome{Welcome: welcome}})

	return s, hello
}

// next waits for the worker's next message.
func (s *planeStream) next(t *testing.T) *tcoderv1.AttachRequest {
	t.Helper()

	select {
	case message, ok := <-s.in:
		require.True(t, ok, "the worker hung up")

		return message
	case <-time.After(patience):
		require.FailNow(t, "no message came")

		return nil
	}
}

// first waits for the first message that pick doesn't return nil for, and
// answers the heartbeats before it.
func first[T any](t *testing.T, s *planeStream, pick func(*tcoderv1.AttachRequest) *T) *T {
	t.Helper()

	for {
		message := s.next(t)
		if picked := pick(message); picked != nil {
			return picked
		}

		if message.GetHeartbeat() != nil {
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Heartbeat{
				Heartbeat: &tcoderv1.HeartbeatAck{},
			}})
		}
	}
}

// send returns when the message and its consequences have arrived.
func (s *planeStream) send(t *testing.T, message *tcoderv1.AttachResponse) {
	t.Helper()

	s.out <- message

	s.plane.settle()
}

func (s *planeStream) assign(t *testing.T, assignment *tcoderv1.Assignment) {
	t.Helper()
	s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Assignment{Assignment: assignment}})
}

func (s *planeStream) acknowledge(t *testing.T, lease *tcoderv1.LeaseRef) {
	t.Helper()
	s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Report{Report: &tcoderv1.ReportAck{
		Lease: lease, Verdict: tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED,
	}}})
}

// cut ends the stream as a control plane does that goes away.
func (s *planeStream) cut(err error) { s.end <- err }

// hungUp waits for the worker to close its half, and closes the other.
func (s *planeStream) hungUp(t *testing.T) {
	t.Helper()

	for {
		select {
		case _, ok := <-s.in:
			if !ok {
				s.cut(nil)

				return
			}
		case <-time.After(patience):
			require.FailNow(t, "the worker doesn't hang up")
		}
	}
}
