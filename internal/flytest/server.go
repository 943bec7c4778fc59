package flytest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/time/rate"
)

// Delays are how long things take. Zero is at once.
type Delays struct {
	Create  time.Duration // of a new machine in created: its image is pulled
	Start   time.Duration // in starting
	Stop    time.Duration // in stopping, of a machine without a process
	Destroy time.Duration // in destroying
	Forget  time.Duration // for which a destroyed machine is still told of by its id
}

// Limits are requests per second and action, and how many may come at once,
// for one machine or, where there is none, the app. Zero is what Fly allows,
// negative is no limit.
type Limits struct {
	PerSecond    float64 // 1
	Burst        int     // 3
	GetPerSecond float64 // 5
	GetBurst     int     // 10
}

// Config is what the server is started with.
type Config struct {
	App     string   // the one there is
	Token   string   // that is accepted, in either scheme; empty accepts any
	Regions []string // in order of preference for requests without one; empty: iad
	Delays  Delays
	Limits  Limits
	// Command returns the program of a machine and its whole environment. Nil
	// makes machines without processes, which run until told to end. It is
	// called under the server's lock.
	Command func(Boot) (argv, env []string)
	// Output receives what the programs print; nil discards it.
	Output io.Writer
	Log    *slog.Logger
}

// Boot is what a machine is started with.
type Boot struct {
	ID, Name, Region, Image string
	Exec, Entrypoint, Cmd   []string
	Env                     map[string]string // with the FLY_ variables
}

// Server is the API. Close it.
type Server struct {
	cfg    Config
	mux    *http.ServeMux
	starts chan func() // run on the thread that parents the processes
	quit   chan struct{}
	ended  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	machines map[string]*machine
	order    []string
	changed  chan struct{} // closed and replaced with each change of a state
	limiters map[string]*rate.Limiter
	faults   []*Fault
	calls    []Call
	room     map[string]int // by region
	quota    int            // machines, -1: none
	full     map[string]bool
	stuck    int
	lag      time.Duration
	counts   Counts
}

// Call is one request that was answered.
type Call struct {
	Op     Op
	Method string
	Path   string // with the query
	Body   string
	Status int // 0: cut off
}

// Counts are machines at an instant, and the most there have been of each.
type Counts struct {
	Existing, MostExisting   int // not destroyed yet
	Running, MostRunning     int // neither stopped nor destroyed: on their way there, up, or on their way out
	Processes, MostProcesses int
	Created                  int // ever
}

// New starts a server, which is an [http.Handler].
func New(cfg Config) *Server {
	if len(cfg.Regions) == 0 {
		cfg.Regions = []string{"iad"}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, starts: make(chan func()), quit: make(chan struct{}),
		machines: map[string]*machine{}, changed: make(chan struct{}), limiters: map[string]*rate.Limiter{},
		room: map[string]int{}, quota: -1, full: map[string]bool{},
	}
	s.routes()
	s.ended.Go(s.parent)
	return s
}

// Close kills what runs and waits for its end.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	for _, m := range s.machines {
		m.cancel()
		m.kill()
	}
	close(s.quit)
	s.mu.Unlock()
	s.ended.Wait()
}

// Op is an action of the API, as its rate limits tell them apart.
type Op string

// The actions.
const (
	Create   Op = "create"
	List     Op = "list"
	Get      Op = "get"
	Update   Op = "update"
	Destroy  Op = "destroy"
	Start    Op = "start"
	Stop     Op = "stop"
	Suspend  Op = "suspend"
	Restart  Op = "restart"
	Signal   Op = "signal"
	Wait     Op = "wait"
	Cordon   Op = "cordon"
	Lease    Op = "lease"
	Metadata Op = "metadata"
	Events   Op = "events"
)

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	for pattern, route := range map[string]struct {
		op  Op
		run func(*call) Answer
	}{
		"POST /":                      {Create, s.create},
		"GET /":                       {List, s.list},
		"GET /{id}":                   {Get, s.get},
		"POST /{id}":                  {Update, s.update},
		"DELETE /{id}":                {Destroy, s.destroyCall},
		"POST /{id}/start":            {Start, s.startCall},
		"POST /{id}/stop":             {Stop, s.stopCall},
		"POST /{id}/suspend":          {Suspend, s.suspendCall},
		"POST /{id}/restart":          {Restart, s.restartCall},
		"POST /{id}/signal":           {Signal, s.signalCall},
		"GET /{id}/wait":              {Wait, s.wait},
		"POST /{id}/cordon":           {Cordon, s.cordonCall},
		"POST /{id}/uncordon":         {Cordon, s.cordonCall},
		"GET /{id}/lease":             {Lease, s.findLease},
		"POST /{id}/lease":            {Lease, s.acquireLease},
		"DELETE /{id}/lease":          {Lease, s.releaseLease},
		"GET /{id}/metadata":          {Metadata, s.getMetadata},
		"PATCH /{id}/metadata":        {Metadata, s.patchMetadata},
		"POST /{id}/metadata/{key}":   {Metadata, s.setMetadata},
		"DELETE /{id}/metadata/{key}": {Metadata, s.deleteMetadata},
		"GET /{id}/events":            {Events, s.events},
	} {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.TrimSuffix(path, "/")
		s.mux.HandleFunc(method+" /v1/apps/{app}/machines"+path, func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, route.op, route.run)
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		write(w, Refusal(http.StatusNotFound, "page not found"))
	})
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Fly-Request-Id", ulid.Make().String()+"-fake")
	s.mux.ServeHTTP(w, r)
}

// call is one request. Handlers run with s.mu held.
type call struct {
	*http.Request

	body    []byte
	machine *machine // of its path, nil if there is none
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, op Op, run func(*call) Answer) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	s.mu.Lock()
	answer, fault := s.answer(&call{Request: r, body: body}, op, run)
	record := Call{Op: op, Method: r.Method, Path: r.URL.RequestURI(), Body: string(body), Status: answer.Status}
	if fault != nil && (fault.Cut || fault.Hang) {
		record.Status = 0
	}
	s.calls = append(s.calls, record)
	s.mu.Unlock()

	if fault != nil && fault.Hang {
		select {
		case <-r.Context().Done():
		case <-s.quit:
		}
	}
	if record.Status == 0 {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	write(w, answer)
}

func (s *Server) answer(c *call, op Op, run func(*call) Answer) (Answer, *Fault) {
	if !s.authorized(c.Header.Get("Authorization")) {
		return Unauthorized(), nil
	}
	if c.PathValue("app") != s.cfg.App {
		return Refusal(http.StatusNotFound, "app not found"), nil
	}
	if !s.allowed(op, c.PathValue("id")) {
		return RateLimited(), nil
	}
	fault := s.fault(op)
	if fault != nil && !fault.Effect {
		return fault.Answer, fault
	}
	if id := c.PathValue("id"); id != "" {
		c.machine = s.machines[id]
		if c.machine == nil {
			return Refusal(http.StatusNotFound, "machine not found"), fault
		}
		if refused, held := s.guard(c, op); held {
			return refused, fault
		}
	}
	answer := run(c)
	if fault != nil {
		answer = fault.Answer
	}
	return answer, fault
}

func (s *Server) authorized(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	return (scheme == "Bearer" || scheme == "FlyV1") && token != "" && (s.cfg.Token == "" || token == s.cfg.Token)
}

// allowed takes from the bucket of an action and what it is about.
func (s *Server) allowed(op Op, id string) bool {
	limits := s.cfg.Limits
	perSecond, burst := limits.PerSecond, limits.Burst
	if perSecond == 0 {
		perSecond, burst = 1, 3
	}
	if op == Get {
		perSecond, burst = limits.GetPerSecond, limits.GetBurst
		if perSecond == 0 {
			perSecond, burst = 5, 10
		}
	}
	if perSecond < 0 {
		return true
	}
	key := string(op) + "|" + id
	limiter := s.limiters[key]
	if limiter == nil {
		limiter = rate.NewLimiter(rate.Limit(perSecond), burst)
		s.limiters[key] = limiter
	}
	return limiter.Allow()
}

// Answer is what a call is answered with. Body is written as JSON; nil is no
// body.
type Answer struct {
	Status     int
	Body       any
	RetryAfter string // header, if not empty
}

func write(w http.ResponseWriter, a Answer) {
	if a.RetryAfter != "" {
		w.Header().Set("Retry-After", a.RetryAfter)
	}
	if a.Body != nil {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.WriteHeader(a.Status)
	if a.Body != nil {
		_ = json.NewEncoder(w).Encode(a.Body) //nolint:errchkjson // the client may be gone
	}
}

// ok is the answer of calls that have nothing else to say.
func ok() Answer { return Answer{Status: http.StatusOK, Body: map[string]bool{"ok": true}} }

// decode reads the body of a call, unknown fields included.
func (c *call) decode(into any) *Answer {
	if len(c.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.body, into); err != nil {
		refused := Refusal(http.StatusBadRequest, "%s", err)
		return &refused
	}
	return nil
}

// Calls returns the calls answered so far, of the given actions or of all.
func (s *Server) Calls(ops ...Op) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []Call
	for _, c := range s.calls {
		if len(ops) == 0 || slices.Contains(ops, c.Op) {
			calls = append(calls, c)
		}
	}
	return calls
}

// Counts returns how many machines there are.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Machines returns the states of the machines that aren't destroyed, by id.
func (s *Server) Machines() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := map[string]string{}
	for id, m := range s.machines {
		if m.state != destroyed {
			states[id] = m.state
		}
	}
	return states
}

// newID returns an id like Fly's.
func newID() string {
	b := make([]byte, 7)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func privateIP(id string) string {
	return fmt.Sprintf("fdaa:0:18:a7b:%s:%s:%s:2", id[:4], id[4:8], id[8:12])
}
