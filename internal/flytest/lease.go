package flytest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	nonceHeader     = "Fly-Machine-Lease-Nonce"
	defaultLeaseTTL = time.Minute
)

// lease lets only who holds it change a machine.
type lease struct {
	nonce, owner, description string
	expires                   time.Time
}

func (m *machine) hold(ttl time.Duration, description string) *lease {
	m.lease = &lease{
		nonce: ulid.Make().String(), owner: newOwner() + "@tokens.fly.io", description: description,
		expires: time.Now().Add(ttl),
	}
	return m.lease
}

// newOwner returns something of the form of a UUID.
func newOwner() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (m *machine) held() *lease {
	if m.lease != nil && time.Now().After(m.lease.expires) {
		m.lease = nil
	}
	return m.lease
}

// guard refuses what needs the lease that somebody else holds.
func (s *Server) guard(c *call, op Op) (Answer, bool) {
	guarded := []Op{Update, Start, Stop, Destroy, Cordon, Suspend, Restart}
	l := c.machine.held()
	if l == nil || !slices.Contains(guarded, op) || c.Header.Get(nonceHeader) == l.nonce {
		return Answer{}, false
	}
	return c.machine.leased(), true
}

func (m *machine) leased() Answer {
	return Refusal(http.StatusConflict, "machine ID %s lease currently held by %s, expires at %s",
		m.id, m.lease.owner, m.lease.expires.UTC().Format(time.RFC3339))
}

func (m *machine) leaseAnswer(status int) Answer {
	return Answer{Status: status, Body: map[string]any{"status": "success", "data": map[string]any{
		"nonce": m.lease.nonce, "expires_at": m.lease.expires.Unix(), "owner": m.lease.owner,
		"description": m.lease.description, "version": m.instance,
	}}}
}

func (s *Server) acquireLease(c *call) Answer {
	var in struct {
		TTL         int    `json:"ttl"` // seconds
		Description string `json:"description"`
	}
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	if text := c.URL.Query().Get("ttl"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			return Refusal(http.StatusBadRequest, "invalid_argument: ttl")
		}
		in.TTL = seconds
	}
	ttl := defaultLeaseTTL
	if in.TTL > 0 {
		ttl = time.Duration(in.TTL) * time.Second
	}
	m := c.machine
	if l := m.held(); l != nil {
		if c.Header.Get(nonceHeader) != l.nonce {
			return m.leased()
		}
		l.expires = time.Now().Add(ttl)
		return m.leaseAnswer(http.StatusCreated)
	}
	m.hold(ttl, in.Description)
	return m.leaseAnswer(http.StatusCreated)
}

func (s *Server) findLease(c *call) Answer {
	if c.machine.held() == nil {
		return Refusal(http.StatusNotFound, "lease not found")
	}
	return c.machine.leaseAnswer(http.StatusOK)
}

func (s *Server) releaseLease(c *call) Answer {
	l := c.machine.held()
	switch {
	case l == nil:
		return Refusal(http.StatusNotFound, "lease not found")
	case c.Header.Get(nonceHeader) != l.nonce:
		return c.machine.leased()
	}
	c.machine.lease = nil
	return ok()
}
