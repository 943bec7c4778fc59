package flytest

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// The states of a machine.
const (
	created    = "created"
	starting   = "starting"
	started    = "started"
	stopping   = "stopping"
	stopped    = "stopped"
	suspending = "suspending"
	suspended  = "suspended"
	restarting = "restarting"
	replacing  = "replacing"
	destroying = "destroying"
	destroyed  = "destroyed"
)

const (
	defaultRestarts    = 10
	defaultStopTimeout = 5 * time.Second
	maxStopTimeout     = 300 * time.Second
	maxEvents          = 100
)

// Config is the configuration of a machine, as far as the server reads it.
type config struct {
	Image string            `json:"image,omitempty"`
	Env   map[string]string `json:"env,omitempty"`
	Init  struct {
		Exec       []string `json:"exec,omitempty"`
		Entrypoint []string `json:"entrypoint,omitempty"`
		Cmd        []string `json:"cmd,omitempty"`
	} `json:"init"`
	Guest       *guest            `json:"guest,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	AutoDestroy bool              `json:"auto_destroy,omitempty"`
	Restart     *struct {
		Policy     string `json:"policy,omitempty"`
		MaxRetries int    `json:"max_retries,omitempty"`
	} `json:"restart,omitempty"`
	StopConfig *stopConfig `json:"stop_config,omitempty"`
}

type guest struct {
	CPUKind  string `json:"cpu_kind"`
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mb"`
}

type stopConfig struct {
	Timeout duration `json:"timeout,omitempty"`
	Signal  string   `json:"signal,omitempty"`
}

// duration is "5m0s" on the wire.
type duration time.Duration

// MarshalJSON implements [json.Marshaler].
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON implements [json.Unmarshaler].
func (d *duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

type exit struct {
	ExitCode      int       `json:"exit_code"`
	GuestExitCode int       `json:"guest_exit_code"`
	GuestSignal   int       `json:"guest_signal"`
	OOMKilled     bool      `json:"oom_killed"`
	RequestedStop bool      `json:"requested_stop"`
	Restarting    bool      `json:"restarting"`
	ExitedAt      time.Time `json:"exited_at"`
}

type event struct {
	ID        string         `json:"id"`
	Type      string         `json:"type"`
	Status    string         `json:"status"`
	Source    string         `json:"source"`
	Timestamp int64          `json:"timestamp"` // in ms
	Request   map[string]any `json:"request,omitempty"`
}

type moment struct {
	at    time.Time
	state string
}

type machine struct {
	id, name, region, state, instance string
	config                            config
	created, updated                  time.Time
	events                            []event // newest first
	history                           []moment
	hostStatus                        string
	cordoned                          bool
	restarts                          int
	lease                             *lease
	next                              *time.Timer // the transition under way
	process                           *process
	requested                         bool // its stop was
}

// set moves a machine to a state.
func (s *Server) set(m *machine, state string) {
	before := m.state
	m.state, m.updated = state, time.Now()
	m.history = append(m.history, moment{m.updated, state})
	exists := func(state string) int {
		if state == "" || state == destroyed {
			return 0
		}
		return 1
	}
	runs := func(state string) int {
		if state == stopped || state == suspended {
			return 0
		}
		return exists(state)
	}
	c := &s.counts
	c.Existing += exists(state) - exists(before)
	c.Running += runs(state) - runs(before)
	c.MostExisting, c.MostRunning = max(c.MostExisting, c.Existing), max(c.MostRunning, c.Running)
	close(s.changed)
	s.changed = make(chan struct{})
}

// later does the next transition of a machine, unless another comes first.
func (s *Server) later(m *machine, after time.Duration, do func()) {
	m.cancel()
	if after == 0 {
		do()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed && m.next == timer {
			m.next = nil
			do()
		}
	})
	m.next = timer
}

func (m *machine) cancel() {
	if m.next != nil {
		m.next.Stop()
		m.next = nil
	}
}

func (m *machine) note(kind, status, source string, request map[string]any) {
	m.events = slices.Insert(m.events, 0, event{
		ID: ulid.Make().String(), Type: kind, Status: status, Source: source, Timestamp: time.Now().UnixMilli(), Request: request,
	})
	m.events = m.events[:min(len(m.events), maxEvents)]
}

// boot takes a machine from wherever it is to started.
func (s *Server) boot(m *machine, source string) {
	m.note("start", starting, source, nil)
	m.requested = false
	s.set(m, starting)
	if s.stuck > 0 {
		s.stuck--
		m.cancel()
		return
	}
	s.later(m, s.cfg.Delays.Start, func() {
		m.note("start", started, "flyd", nil)
		s.set(m, started)
		if s.cfg.Command != nil {
			s.spawn(m)
		}
	})
}

// halt asks a running machine to stop.
func (s *Server) halt(m *machine, how stopConfig, then string) {
	m.requested = true
	m.note("stop", then, "user", nil)
	s.set(m, then)
	if m.process == nil {
		s.later(m, s.cfg.Delays.Stop, func() { s.exited(m, exit{RequestedStop: true}) })
		return
	}
	m.process.signal(how.Signal)
	s.later(m, min(time.Duration(how.Timeout), maxStopTimeout), m.kill)
}

// stopping says how a machine is to be stopped: as asked, else as configured,
// else by default.
func (m *machine) howToStop(asked stopConfig) stopConfig {
	if c := m.config.StopConfig; c != nil {
		if asked.Timeout == 0 {
			asked.Timeout = c.Timeout
		}
		if asked.Signal == "" {
			asked.Signal = c.Signal
		}
	}
	if asked.Timeout == 0 {
		asked.Timeout = duration(defaultStopTimeout)
	}
	if asked.Signal == "" {
		asked.Signal = "SIGINT"
	}
	return asked
}

// exited is the end of a machine's program.
func (s *Server) exited(m *machine, e exit) {
	m.cancel()
	e.RequestedStop, e.ExitedAt = m.requested, time.Now()
	was := m.state
	policy, retries := "on-failure", defaultRestarts
	if r := m.config.Restart; r != nil && r.Policy != "" {
		policy = r.Policy
		if r.MaxRetries > 0 {
			retries = r.MaxRetries
		}
	}
	failed := e.ExitCode != 0 || e.GuestSignal != 0
	e.Restarting = !m.requested && (policy == "always" || policy == "on-failure" && failed && m.restarts < retries)
	m.note("exit", stopped, "flyd", map[string]any{"exit_event": e, "restart_count": m.restarts})
	switch {
	case was == destroying:
		s.bury(m)
	case was == suspending:
		s.set(m, suspended)
	case was == restarting, was == replacing:
		s.boot(m, "user")
	case e.Restarting:
		m.restarts++
		s.boot(m, "flyd")
	case m.config.AutoDestroy:
		s.set(m, destroying)
		s.bury(m)
	default:
		s.set(m, stopped)
	}
}

// remove destroys a machine, whatever it does.
func (s *Server) remove(m *machine) {
	m.note("destroy", destroying, "user", nil)
	m.requested = true
	s.set(m, destroying)
	m.cancel()
	if m.process != nil {
		m.kill()
		return
	}
	s.bury(m)
}

func (s *Server) bury(m *machine) {
	s.later(m, s.cfg.Delays.Destroy, func() {
		s.set(m, destroyed)
		m.lease = nil
		s.later(m, s.cfg.Delays.Forget, func() {
			delete(s.machines, m.id)
			s.order = slices.DeleteFunc(s.order, func(id string) bool { return id == m.id })
		})
	})
}

// view is a machine on the wire.
func (m *machine) view(state string, summary bool) map[string]any {
	view := map[string]any{
		"id": m.id, "name": m.name, "state": state, "region": m.region, "instance_id": m.instance, "version": m.instance,
		"private_ip": privateIP(m.id), "created_at": m.created.UTC(), "updated_at": m.updated.UTC(),
		"host_status": m.hostStatus, "cordoned": m.cordoned,
		"image_ref": map[string]any{"registry": "registry.fly.io", "repository": m.config.Image},
	}
	c := m.config
	c.Env, c.Metadata = maps.Clone(c.Env), maps.Clone(c.Metadata)
	switch {
	case summary:
	case m.hostStatus != "ok":
		view["config"], view["incomplete_config"] = nil, c
	default:
		view["config"], view["events"], view["checks"] = c, slices.Clone(m.events), []any{}
	}
	return view
}
