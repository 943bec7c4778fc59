package flytest

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	leastWait = time.Second
	mostWait  = time.Minute
)

// wait answers once a machine is in one of the states asked for. It lets go of
// the lock while it waits.
func (s *Server) wait(c *call) Answer {
	query := c.URL.Query()
	states := split(query["state"])
	if len(states) == 0 {
		states = []string{started}
	}
	for _, state := range states {
		if !slices.Contains([]string{started, stopped, suspended, destroyed, "settled"}, state) {
			return Refusal(http.StatusBadRequest, "invalid_argument: unknown state %q", state)
		}
	}
	if slices.Contains(states, stopped) && query.Get("instance_id") == "" && query.Get("version") == "" {
		return Refusal(http.StatusBadRequest, "invalid_argument: instance_id is required to wait for a stopped machine")
	}
	limit := mostWait
	if text := query.Get("timeout"); text != "" {
		seconds, err := strconv.Atoi(text)
		limit = time.Duration(seconds) * time.Second
		if err != nil || limit < leastWait || limit > mostWait {
			return Refusal(http.StatusBadRequest, "invalid_argument: invalid WaitRequest.Timeout: value must be inside range [1s, 1m0s]")
		}
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		state := c.machine.state
		settled := slices.Contains([]string{started, stopped, suspended, destroyed}, state)
		switch {
		case slices.Contains(states, state) || settled && slices.Contains(states, "settled"):
			return Answer{Status: http.StatusOK, Body: map[string]any{"ok": true, "state": state, "version": c.machine.instance}}
		case state == destroyed:
			return gone()
		}
		changed := s.changed
		s.mu.Unlock()
		expired := false
		select {
		case <-changed:
		case <-timeout.C:
			expired = true
		case <-c.Context().Done():
			expired = true
		case <-s.quit:
			expired = true
		}
		s.mu.Lock()
		if expired {
			return Refusal(http.StatusRequestTimeout,
				"deadline_exceeded: machine failed to reach desired state, %s, currently %s", states[0], c.machine.state)
		}
	}
}
