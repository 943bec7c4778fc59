package worker

import (
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Transport is how a worker talks to the control plane.
type Transport string

// The transports.
const (
	// TransportAuto holds a stream, and makes calls where streams don't live.
	TransportAuto Transport = "auto"
	// TransportStream holds a stream, whatever comes.
	TransportStream Transport = "stream"
	// TransportSync makes calls, one after the other.
	TransportSync Transport = "sync"
)

const (
	minAttachPause = 100 * time.Millisecond
	maxAttachPause = 5 * time.Second
	// handoverPause is within which the workers of a control plane that stops
	// attach to the others.
	handoverPause = 200 * time.Millisecond
	// settledLife is after how long the failures before a session are forgotten.
	settledLife = 5 * time.Second
	// streamLife is how long a stream lives at least where streams can.
	streamLife = 10 * time.Second
	// maxStrikes is after how many streams in a row that didn't live calls are made.
	maxStrikes = 2
	// minStreamPause and maxStreamPause are how long calls are made before a
	// stream is tried again.
	minStreamPause = 5 * time.Minute
	maxStreamPause = time.Hour
)

// tooLarge begins the error of a call that a proxy refused for its size: Connect
// has no code for that.
const tooLarge = "413 "

// errTryStream ends a session of calls that go well.
var errTryStream = errors.New("time to try a stream again")

// route says to which control plane to attach next, how, and after which pause.
type route struct {
	servers   []string
	transport Transport

	at      int // of servers
	pause   time.Duration
	failed  int // sessions in a row that didn't last
	calling bool
	strikes int // streams in a row that didn't live

	streamPause time.Duration
	streamAt    time.Time // when to try a stream again
}

// newRoute begins with a server that depends on the worker, so that many
// workers spread over all servers.
func newRoute(servers []string, transport Transport, workerID string) *route {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(workerID)) // never fails

	return &route{
		servers: servers, transport: transport, at: int(hash.Sum32() % uint32(len(servers))),
		pause: minAttachPause, calling: transport == TransportSync, streamPause: minStreamPause,
	}
}

func (r *route) server() string { return r.servers[r.at] }

// outcome is how a session ended.
type outcome struct {
	err      error
	calls    bool // it was no stream
	welcomed bool
	lived    time.Duration
}

// forgive forgets the failures before a session that did its work for a while.
// A welcome alone is none: what ends the session may do so each time.
func (r *route) forgive(end outcome) {
	if end.welcomed && end.lived >= settledLife {
		r.pause, r.failed = minAttachPause, 0
	}
}

// after takes in how a session ended, and returns the pause before the next.
// A control plane that stops says so: its workers go elsewhere at once. A pause
// grows when all servers have failed.
func (r *route) after(end outcome, now time.Time) time.Duration {
	r.judge(end, now)

	if errors.Is(end.err, errTryStream) {
		return 0
	}

	r.at = (r.at + 1) % len(r.servers)

	if end.welcomed && end.lived >= time.Second && refusal(end.err).GetReason() == tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING {
		return rand.N(handoverPause) //nolint:gosec // not a secret
	}

	if refusedMessage(end.err) {
		return jitter(maxAttachPause) // it greets the worker each time, and refuses the same again
	}

	pause := jitter(r.pause)

	r.failed++
	if r.failed%len(r.servers) == 0 {
		r.pause = min(2*r.pause, maxAttachPause)
	}

	return pause
}

// judge decides between streams and calls.
func (r *route) judge(end outcome, now time.Time) {
	if r.transport != TransportAuto {
		return
	}

	var unreached *net.OpError

	switch {
	case errors.Is(end.err, errTryStream):
		r.calling, r.strikes = false, maxStrikes-1
	case end.calls:
		// Where calls fail, too, each is tried in turn.
		r.calling = end.welcomed
	case end.err == nil || refusal(end.err) != nil || refusedMessage(end.err) || end.welcomed && end.lived >= streamLife:
		r.strikes = 0 // it came through

		if end.lived >= streamLife {
			r.streamPause = minStreamPause
		}
	case errors.As(end.err, &unreached) && unreached.Op == "dial":
		// It tells nothing of streams.
	default:
		r.strikes++
		if connect.CodeOf(end.err) == connect.CodeUnimplemented {
			r.strikes = maxStrikes
		}

		if r.strikes >= maxStrikes {
			r.calling = true
			r.streamAt = now.Add(jitter(r.streamPause))
			r.streamPause = min(2*r.streamPause, maxStreamPause)
		}
	}
}

// tryStreamAt is when to give up calls that go well for a stream; zero is never.
func (r *route) tryStreamAt() time.Time {
	if r.transport != TransportAuto || !r.calling {
		return time.Time{}
	}

	return r.streamAt
}

// refusal is what the control plane itself said, nil if the error isn't its own.
func refusal(err error) *tcoderv1.ErrorDetail {
	var coded *connect.Error
	if !errors.As(err, &coded) {
		return nil
	}

	for _, detail := range coded.Details() {
		if value, err := detail.Value(); err == nil {
			if detail, ok := value.(*tcoderv1.ErrorDetail); ok {
				return detail
			}
		}
	}

	return nil
}

// refusedMessage tells whether a session ended because of a message that the
// control plane doesn't take, or that can't be sent. One that it can't even read
// is refused before anything of ours could add a detail, and a proxy refuses a
// large one by its status.
func refusedMessage(err error) bool {
	if errors.Is(err, errUnsayable) {
		return true
	}

	if detail := refusal(err); detail != nil {
		return detail.GetReason() == tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID
	}

	var coded *connect.Error
	if !errors.As(err, &coded) {
		return false
	}

	switch coded.Code() {
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		return connect.IsWireError(err) // else it is this side that can't read
	default:
		return strings.HasPrefix(coded.Message(), tooLarge)
	}
}

// incompatible tells whether the control plane refused this worker for good.
func incompatible(err error) bool {
	return connect.CodeOf(err) == connect.CodeFailedPrecondition &&
		refusal(err).GetReason() == tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE
}
