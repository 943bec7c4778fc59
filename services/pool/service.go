// Package pool is PoolService: the streams of the workers, the dispatcher that
// gives them tasks, and the operators' view of both.
//
// A session is one stream of one worker. What it remembers (the leases of the
// worker, when their URLs expire) is a cache: the store is the truth, and a
// stream that is cut changes nothing but that. The worker attaches again, to
// any replica, says what it holds, and is told what is still its own. So a
// control plane that stops or dies loses no work, and a report that comes
// twice, or late, or to another replica, is judged by the store alone.
//
// Nothing here polls for tasks. A ready task, a freed slot or a new session
// wakes the dispatcher, which claims for the emptiest worker; a slow tick
// covers a wake-up that was lost.
package pool

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	defaultHeartbeat        = 5 * time.Second
	defaultLease            = 20 * time.Second
	defaultURLGrace         = 5 * time.Minute
	defaultProgressInterval = 200 * time.Millisecond
	defaultStoreInterval    = 2 * time.Second
	defaultWatchInterval    = 500 * time.Millisecond
	defaultWatchRefresh     = 15 * time.Second
	// callTimeout bounds one call to a store.
	callTimeout = 10 * time.Second
	// firstRetry and maxRetry are the pauses between tries of such a call.
	firstRetry = 50 * time.Millisecond
	maxRetry   = 2 * time.Second
	// wakesPause is how long to wait before listening for wake-ups again.
	wakesPause = time.Second
)

// Config says how the pool behaves.
type Config struct {
	// Heartbeat is how often a worker is heard (0: 5 s), Lease how long a
	// lease lasts after each renewal (0: 20 s).
	Heartbeat, Lease time.Duration
	// URLGrace is how much longer than a lease the URLs for it last (0: 5 min).
	URLGrace time.Duration
	// ProgressInterval is the least time between two renewals of a worker's
	// leases while somebody watches one of its jobs: progress in between waits
	// (0: 200 ms). StoreInterval is the same while nobody does (0: 2 s).
	ProgressInterval, StoreInterval time.Duration
	// ProjectRunningLimit is how many tasks of a project may run at a time (0:
	// any number). Those beyond it wait, whatever is free.
	ProjectRunningLimit int
	// Limits bound what a source may be, ProjectLimits those of some projects
	// in their place.
	Limits        media.Limits
	ProjectLimits map[string]media.Limits
	// MaxPutBytes is the largest result that is written by one PUT, and the
	// largest part of a larger one (0: objectstore.MaxPutSizeBytes). Stores take
	// no part but the last below objectstore.MinPartSizeBytes.
	MaxPutBytes int64
	// Retry is the policy for attempts that fail.
	Retry pipeline.RetryPolicy
	// Provider names what makes machines; `none` if nothing does.
	Provider string
	// Settings are those that can be changed later, as they are at the start.
	Settings pipeline.PoolSettings
	// CheckSettings says whether the provider can do with settings; may be nil.
	CheckSettings func(pipeline.PoolSettings) error
	// WatchInterval is the least time between two messages of WatchPool (0: 500 ms),
	// WatchRefresh the most (0: 15 s).
	WatchInterval, WatchRefresh time.Duration
}

// Store is what the pool needs of the store.
type Store interface {
	pipeline.LeaseStore
	CommitSegments(ctx context.Context, c pipeline.SegmentCommit) (pipeline.Verdict, error)
	ReadStream(ctx context.Context, id string, run int, after int64) (pipeline.Stream, error)
	GetJob(ctx context.Context, id string) (pipeline.Job, error)
	AttachWorker(ctx context.Context, w pipeline.Worker, lease time.Duration) (int64, []pipeline.Lease, error)
	DetachWorker(ctx context.Context, id string, session int64, gone bool) error
	DrainWorker(ctx context.Context, id string) (pipeline.Worker, error)
	LeaveWorker(ctx context.Context, id string, session int64, minWarm int) (bool, error)
	ListWorkers(ctx context.Context) ([]pipeline.Worker, error)
	ListMachines(ctx context.Context) ([]pipeline.Machine, error)
	GetMachine(ctx context.Context, id string) (pipeline.Machine, error)
	MoveMachine(ctx context.Context, m pipeline.MachineMove) (pipeline.Machine, error)
	ReadPool(ctx context.Context) (pipeline.PoolView, error)
	ChangePool(ctx context.Context, c pipeline.PoolChange, version int64) (bool, error)
	PoolStats(ctx context.Context) (pipeline.PoolStats, error)
	Wakes(ctx context.Context) (<-chan pipeline.Wake, error)
}

// Sources signs what workers read: the input bucket.
type Sources interface {
	PresignGet(ctx context.Context, key string, opts objectstore.GetOptions) (objectstore.SignedRequest, error)
}

// Outputs signs and checks what workers write, and read again: the output bucket.
type Outputs interface {
	PresignPut(ctx context.Context, req objectstore.PutRequest) (objectstore.SignedRequest, error)
	PresignGet(ctx context.Context, key string, opts objectstore.GetOptions) (objectstore.SignedRequest, error)
	PresignPart(ctx context.Context, key, uploadID string, partNumber int, sizeBytes int64, expires time.Duration) (objectstore.SignedRequest, error)
	CreateMultipart(ctx context.Context, key string, opts objectstore.MultipartOptions) (uploadID string, err error)
	CompleteMultipart(ctx context.Context, key, uploadID string, parts []objectstore.Part) error
	AbortMultipart(ctx context.Context, key, uploadID string) error
	Head(ctx context.Context, key string) (objectstore.ObjectInfo, error)
}

// Deps are what a Service works with.
type Deps struct {
	Store Store
	In    Sources
	Out   Outputs
	// Publish publishes a job whose tasks are done. If it fails, the sweeper
	// does it later.
	Publish func(ctx context.Context, jobID string) error
	Log     *slog.Logger
}

// Service is PoolService. Streams are served while Run does its work.
type Service struct {
	tcoderv1connect.UnimplementedPoolServiceHandler

	cfg      Config
	deps     Deps
	metrics  *metrics
	dispatch *dispatcher
	checks   chan struct{} // asks for a look at the sessions' state in the store
	draining chan struct{} // closed when the server stops
	changed  chan struct{} // asks for a look at the settings
	settings atomic.Pointer[pipeline.PoolSettings]
	watchers *watchers
	roster   roster
	work     sync.WaitGroup

	mu       sync.Mutex
	stopped  bool // no stream and no work may begin
	sessions map[string]*session
}

// New starts nothing; Run does.
func New(cfg Config, deps Deps) *Service {
	orDefault(&cfg.Heartbeat, defaultHeartbeat)
	orDefault(&cfg.Lease, defaultLease)
	orDefault(&cfg.URLGrace, defaultURLGrace)
	orDefault(&cfg.ProgressInterval, defaultProgressInterval)
	orDefault(&cfg.StoreInterval, defaultStoreInterval)
	orDefault(&cfg.WatchInterval, defaultWatchInterval)
	orDefault(&cfg.WatchRefresh, defaultWatchRefresh)
	if cfg.MaxPutBytes == 0 {
		cfg.MaxPutBytes = objectstore.MaxPutSizeBytes
	}
	cfg.StoreInterval = min(cfg.StoreInterval, cfg.Heartbeat)
	s := &Service{
		cfg:      cfg,
		deps:     deps,
		checks:   make(chan struct{}, 1),
		draining: make(chan struct{}),
		changed:  make(chan struct{}, 1),
		watchers: newWatchers(),
		sessions: map[string]*session{},
	}
	s.settings.Store(&cfg.Settings)
	s.metrics = newMetrics(s)
	s.dispatch = newDispatcher(s)
	return s
}

// limits bound the sources of a project.
func (s *Service) limits(project string) media.Limits {
	if own, found := s.cfg.ProjectLimits[project]; found {
		return own
	}
	return s.cfg.Limits
}

func orDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Handler returns the path and the handler of the service. It has to be
// mounted instead of the generated one: streams are bounded in time by means
// of the HTTP server that only this one passes on.
func (s *Service) Handler(opts ...connect.HandlerOption) (string, http.Handler) {
	path, handler := tcoderv1connect.NewPoolServiceHandler(s, opts...)
	return path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), controlKey{}, http.NewResponseController(w))
		handler.ServeHTTP(w, r.WithContext(ctx))
	})
}

// controlKey is under which Handler passes the controller of a stream.
type controlKey struct{}

// Run dispatches until ctx ends, then ends every stream with SERVER_DRAINING,
// and returns nil when nothing is at work any more. What workers run goes on;
// they attach to another replica, or to the next life of this one.
func (s *Service) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { s.watch(ctx) })
	loops.Go(func() { s.dispatch.run(ctx) })
	loops.Go(func() { s.supervise(ctx) })
	loops.Go(func() { s.followSettings(ctx) })
	loops.Go(func() { s.feedWatchers(ctx) })
	<-ctx.Done()

	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	close(s.draining)
	loops.Wait()
	s.work.Wait()
	return nil
}

// Attached names the workers whose streams are open.
func (s *Service) Attached() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.sessions))
}

// begin reports whether work may begin; the caller ends it with s.work.Done.
func (s *Service) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.work.Add(1)
	return true
}

// beside works on what a worker said beside its stream, and holds the stream up
// if too much of the same worker's is worked on already. False if it can't.
func (s *Service) beside(ctx context.Context, sess *session, work func(ctx context.Context)) bool {
	select {
	case sess.turns <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if !s.begin() {
		<-sess.turns
		return false
	}
	go func() {
		defer s.work.Done()
		defer func() { <-sess.turns }()
		work(context.WithoutCancel(ctx))
	}()
	return true
}

// watch passes on the wake-ups of the store.
func (s *Service) watch(ctx context.Context) {
	for ctx.Err() == nil {
		wakes, err := s.deps.Store.Wakes(ctx)
		if err != nil {
			sleep(ctx, wakesPause)
			continue
		}
		s.dispatch.wake() // for what came before anybody listened
		signal(s.checks)
		signal(s.changed)
		for wake := range wakes {
			switch wake {
			case pipeline.WakeReady:
				s.dispatch.wake()
			case pipeline.WakeWorker:
				signal(s.checks)
			case pipeline.WakePool:
				signal(s.changed)
			case pipeline.WakeDue: // the sweeper's
			}
		}
	}
}

// signal sends to a channel of one, unless a signal waits there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
