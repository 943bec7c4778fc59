package flytest

import (
	"fmt"
	"net/http"
	"time"
)

// Fault is something that goes wrong with the next calls of an action.
type Fault struct {
	Op Op // empty: of any
	// Answer replaces the right one.
	Answer Answer
	// Cut cuts the connection instead of answering.
	Cut bool
	// Hang never answers: until the client gives up.
	Hang bool
	// Effect lets the call take effect first: its answer is lost.
	Effect bool
	// Times is how often (0: once).
	Times int
}

// Inject adds a fault. Those of one action happen in the order in which they
// were added.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Times = max(1, f.Times)
	s.faults = append(s.faults, &f)
}

// Pending is how many faults have yet to happen.
func (s *Server) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.faults {
		n += f.Times
	}
	return n
}

func (s *Server) fault(op Op) *Fault {
	for _, f := range s.faults {
		if f.Times > 0 && (f.Op == "" || f.Op == op) {
			f.Times--
			return f
		}
	}
	return nil
}

// SetRoom says for how many machines a region has room; negative is no bound.
func (s *Server) SetRoom(region string, machines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room[region] = machines
	if machines < 0 {
		delete(s.room, region)
	}
}

// SetQuota says how many machines the organization may have; negative is no
// bound.
func (s *Server) SetQuota(machines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota = machines
}

// FillHost says whether the host of a machine has no room to start it.
func (s *Server) FillHost(id string, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full[id] = full
}

// StickNext makes the next machines that boot stay in starting.
func (s *Server) StickNext(machines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = machines
}

// SetListLag makes the list show the machines as they were some time ago.
func (s *Server) SetListLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = lag
}

// SetHostStatus says whether the host of a machine can be seen: ok, unknown or
// unreachable. The config of a machine is told of incompletely unless it can.
func (s *Server) SetHostStatus(id, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machines[id]; m != nil {
		m.hostStatus = status
	}
}

// Exit ends the program of a machine by itself, with an exit code.
func (s *Server) Exit(id string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.machines[id]
	if m == nil || m.state != started {
		return
	}
	if m.process != nil {
		m.kill()
		return
	}
	s.exited(m, exit{ExitCode: code, GuestExitCode: code})
}

// Refusal is an answer with the error body of the API.
func Refusal(status int, format string, args ...any) Answer {
	return Answer{Status: status, Body: map[string]any{"error": fmt.Sprintf(format, args...)}}
}

// Unauthorized is the answer to a wrong token.
func Unauthorized() Answer {
	return Refusal(http.StatusUnauthorized, "Authenticate: token validation error")
}

// RateLimited is the answer to the fourth call in a second.
func RateLimited() Answer { return Refusal(http.StatusTooManyRequests, "rate limit exceeded") }

// RegionFull is the answer if a region has no host for a new machine.
func RegionFull() Answer {
	return Answer{Status: http.StatusUnprocessableEntity, Body: map[string]any{
		"error": "could not find a candidate host with sufficient resources", "status": "insufficient_capacity",
	}}
}

// NoCapacity is another answer to that.
func NoCapacity() Answer {
	return Refusal(http.StatusConflict, "aborted: insufficient resources available to fulfill request: could not reserve resource for machine: insufficient CPUs available")
}

// HostFull is the answer if a stopped machine's host has no room.
func HostFull() Answer {
	return Refusal(http.StatusConflict,
		"aborted: could not reserve resource for machine: insufficient memory available to fulfill request on the current host")
}

// OverQuota is the answer if the organization has too much in a region.
func OverQuota(region string) Answer {
	return Refusal(http.StatusForbidden,
		`organization "acme" is using 65536 MB of memory in %s which is over the allowed quota. please consider other regions`, region)
}

// NotReady is the answer to starting a machine in the middle of something.
func NotReady(state string) Answer {
	switch state {
	case replacing:
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: machine getting replaced, refusing to start")
	case stopping:
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: machine still active, refusing to start")
	default:
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: unable to start machine from current state: '%s'", state)
	}
}

// NameTaken is the answer to creating a machine with the name of another.
func NameTaken(id, name string) Answer {
	return Refusal(http.StatusConflict,
		`already_exists: unique machine name violation, machine ID %s already exists with name "%s"`, id, name)
}
