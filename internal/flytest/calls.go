package flytest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	defaultMemoryMB = 256
	defaultEvents   = 20
	mostEvents      = 50
)

type launch struct {
	Name       string  `json:"name"`
	Region     string  `json:"region"`
	Config     *config `json:"config"`
	SkipLaunch bool    `json:"skip_launch"`
	LeaseTTL   int     `json:"lease_ttl"` // seconds
}

func (s *Server) create(c *call) Answer {
	var in launch
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	if in.Config == nil || in.Config.Image == "" {
		return Refusal(http.StatusBadRequest, "invalid_argument: config.image is required")
	}
	if refused := in.Config.Guest.check(); refused != nil {
		return *refused
	}
	for _, id := range s.order {
		if m := s.machines[id]; in.Name != "" && m.name == in.Name && m.state != destroyed {
			return NameTaken(m.id, m.name)
		}
	}
	if s.quota >= 0 && s.counts.Existing >= s.quota {
		return OverQuota(s.regions(in.Region)[0])
	}
	region, found := s.place(in.Region)
	if !found {
		return RegionFull()
	}
	m := &machine{
		id: newID(), name: in.Name, region: region, instance: ulid.Make().String(), config: *in.Config,
		created: time.Now(), hostStatus: "ok",
	}
	if m.name == "" {
		m.name = "quiet-" + m.id
	}
	s.machines[m.id] = m
	s.order = append(s.order, m.id)
	s.counts.Created++
	m.note("launch", created, "user", nil)
	s.set(m, created)
	view := m.view(created, false)
	if in.LeaseTTL > 0 {
		view["nonce"] = m.hold(time.Duration(in.LeaseTTL)*time.Second, "").nonce
	}
	s.later(m, s.cfg.Delays.Create, func() {
		if in.SkipLaunch {
			s.set(m, stopped)
			return
		}
		s.boot(m, "user")
	})
	return Answer{Status: http.StatusOK, Body: view}
}

// check applies what is known of the sizes there are.
func (g *guest) check() *Answer {
	if g == nil {
		return nil
	}
	least, most := 256, 2048
	if g.CPUKind == "performance" {
		least, most = 2048, 8192
	}
	if !slices.Contains([]string{"shared", "performance"}, g.CPUKind) ||
		!slices.Contains([]int{1, 2, 4, 6, 8, 10, 12, 14, 16}, g.CPUs) ||
		g.MemoryMB%256 != 0 || g.MemoryMB < least*g.CPUs || g.MemoryMB > most*g.CPUs {
		refused := Refusal(http.StatusBadRequest, "invalid_argument: unsupported guest %s-cpu-%dx:%d", g.CPUKind, g.CPUs, g.MemoryMB)
		return &refused
	}
	return nil
}

// regions are those a request asks for, in order.
func (s *Server) regions(asked string) []string {
	var regions []string
	for region := range strings.SplitSeq(asked, ",") {
		switch region {
		case "", "any", "us", "eu", "na", "sa", "apac":
			regions = append(regions, s.cfg.Regions...)
		default:
			regions = append(regions, region)
		}
	}
	return regions
}

// place returns the first region with room.
func (s *Server) place(asked string) (string, bool) {
	for _, region := range s.regions(asked) {
		room, bounded := s.room[region]
		there := 0
		for _, m := range s.machines {
			if m.region == region && m.state != destroyed {
				there++
			}
		}
		if !bounded || there < room {
			return region, true
		}
	}
	return "", false
}

func (s *Server) list(c *call) Answer {
	query := c.URL.Query()
	states, summary := split(query["state"]), query.Get("summary") == "true"
	seen := time.Now().Add(-s.lag)
	list := []map[string]any{}
	for _, id := range s.order {
		m := s.machines[id]
		state := ""
		for _, then := range m.history {
			if !then.at.After(seen) {
				state = then.state
			}
		}
		if state == "" || state == destroyed && query.Get("include_deleted") != "true" ||
			len(states) > 0 && !slices.Contains(states, state) ||
			query.Get("region") != "" && query.Get("region") != m.region || !m.labelled(query) {
			continue
		}
		list = append(list, m.view(state, summary))
	}
	return Answer{Status: http.StatusOK, Body: list}
}

func split(values []string) []string {
	var parts []string
	for _, value := range values {
		parts = append(parts, strings.Split(value, ",")...)
	}
	return parts
}

// labelled reports whether a machine has the metadata that a query asks for.
func (m *machine) labelled(query map[string][]string) bool {
	for name, values := range query {
		key, is := strings.CutPrefix(name, "metadata.")
		if is && !slices.Contains(values, m.config.Metadata[key]) {
			return false
		}
	}
	return true
}

func (s *Server) get(c *call) Answer {
	return Answer{Status: http.StatusOK, Body: c.machine.view(c.machine.state, false)}
}

func (s *Server) update(c *call) Answer {
	var in launch
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	m := c.machine
	switch {
	case m.state == destroyed || m.state == destroying:
		return gone()
	case in.Config == nil || in.Config.Image == "":
		return Refusal(http.StatusBadRequest, "invalid_argument: config.image is required")
	}
	if refused := in.Config.Guest.check(); refused != nil {
		return *refused
	}
	m.config, m.instance, m.restarts = *in.Config, ulid.Make().String(), 0
	m.note("update", m.state, "user", nil)
	if m.state == started || m.state == starting {
		s.halt(m, m.howToStop(stopConfig{}), replacing)
	}
	return Answer{Status: http.StatusOK, Body: m.view(m.state, false)}
}

func (s *Server) startCall(c *call) Answer {
	m := c.machine
	before := m.state
	switch m.state {
	case destroyed, destroying:
		return gone()
	case started, starting:
	case stopped, suspended:
		if s.full[m.id] {
			return HostFull()
		}
		m.restarts = 0
		s.boot(m, "user")
	default:
		return NotReady(m.state)
	}
	return Answer{Status: http.StatusOK, Body: map[string]any{"previous_state": before, "migrated": false, "new_host": ""}}
}

// stopRequest is named in an error of theirs.
type stopRequest struct {
	Signal  string   `json:"signal"`
	Timeout duration `json:"timeout"`
}

func (s *Server) stopCall(c *call) Answer {
	if strings.HasPrefix(strings.TrimSpace(string(c.body)), "[") {
		return Refusal(http.StatusBadRequest, "json: cannot unmarshal array into Go value of type main.stopRequest")
	}
	var in stopRequest
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	m := c.machine
	switch m.state {
	case destroyed, destroying:
		return gone()
	case stopped, stopping:
	case suspended:
		s.set(m, stopped)
	default:
		s.halt(m, m.howToStop(stopConfig{Timeout: in.Timeout, Signal: in.Signal}), stopping)
	}
	return ok()
}

func (s *Server) suspendCall(c *call) Answer {
	if c.machine.state != started {
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: unable to suspend machine from current state: '%s'", c.machine.state)
	}
	s.halt(c.machine, stopConfig{Signal: "SIGKILL", Timeout: duration(time.Second)}, suspending)
	return ok()
}

func (s *Server) restartCall(c *call) Answer {
	m := c.machine
	switch m.state {
	case started:
		s.halt(m, m.howToStop(stopConfig{Signal: c.URL.Query().Get("signal")}), restarting)
	case stopped, suspended:
		s.boot(m, "user")
	default:
		return NotReady(m.state)
	}
	return ok()
}

func (s *Server) signalCall(c *call) Answer {
	var in struct {
		Signal any `json:"signal"`
	}
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	m := c.machine
	if m.state != started {
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: machine not started")
	}
	name, named := in.Signal.(string)
	if !named {
		name = "SIGKILL" // fly-go's Kill sends the number 9
	}
	switch {
	case m.process != nil:
		m.process.signal(name)
	case name == "SIGKILL":
		s.exited(m, exit{ExitCode: 137, GuestSignal: 9})
	}
	return ok()
}

func (s *Server) cordonCall(c *call) Answer {
	c.machine.cordoned = strings.HasSuffix(c.URL.Path, "/cordon")
	return ok()
}

func (s *Server) destroyCall(c *call) Answer {
	m, query := c.machine, c.URL.Query()
	force := query.Get("force") == "true" || query.Get("kill") == "true"
	switch {
	case m.state == destroyed:
		return gone()
	case m.state == destroying:
	case m.state != stopped && m.state != suspended && !force:
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: unable to destroy machine, not currently stopped")
	default:
		s.remove(m)
	}
	return ok()
}

func gone() Answer { return Refusal(http.StatusNotFound, "machine not found") }

func (s *Server) events(c *call) Answer {
	limit, err := strconv.Atoi(c.URL.Query().Get("limit"))
	if err != nil || limit < 1 {
		limit = defaultEvents
	}
	events := slices.Clone(c.machine.events)
	return Answer{Status: http.StatusOK, Body: events[:min(limit, mostEvents, len(events))]}
}

func (s *Server) getMetadata(c *call) Answer {
	metadata := map[string]string{}
	maps.Copy(metadata, c.machine.config.Metadata)
	return Answer{Status: http.StatusOK, Body: metadata}
}

func (s *Server) setMetadata(c *call) Answer {
	var in struct {
		Value string `json:"value"`
	}
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	c.machine.label(map[string]string{c.PathValue("key"): in.Value})
	return Answer{Status: http.StatusNoContent}
}

func (s *Server) deleteMetadata(c *call) Answer {
	c.machine.label(map[string]string{c.PathValue("key"): ""})
	return Answer{Status: http.StatusNoContent}
}

func (s *Server) patchMetadata(c *call) Answer {
	var in struct {
		Metadata       map[string]string `json:"metadata"`
		MachineVersion string            `json:"machine_version"`
	}
	if refused := c.decode(&in); refused != nil {
		return *refused
	}
	if in.MachineVersion != "" && in.MachineVersion != c.machine.instance {
		return Refusal(http.StatusPreconditionFailed, "failed_precondition: machine version mismatch")
	}
	c.machine.label(in.Metadata)
	return s.getMetadata(c)
}

// label sets metadata; an empty value removes it.
func (m *machine) label(values map[string]string) {
	metadata := map[string]string{}
	maps.Copy(metadata, m.config.Metadata)
	maps.Copy(metadata, values)
	maps.DeleteFunc(metadata, func(_, value string) bool { return value == "" })
	m.config.Metadata = metadata
}
