// Package job is JobService: it starts jobs on objects that are there
// already, reads, lists and watches them, and ends them.
//
// A job of another project does not exist for a caller. Reading is one call
// to the store; what changes a job is one atomic step of it.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// Config says how the service behaves. The zero value of a field means its
// default.
type Config struct {
	// MaxSizeBytes is the largest source (0: 100 GiB), ProjectMaxSizeBytes that
	// of some projects in its place.
	MaxSizeBytes        int64
	ProjectMaxSizeBytes map[string]int64
	// WaitingLimit is how many jobs of a project may wait or be uploading at
	// most; another one is refused with QUEUE_FULL (0: any number).
	WaitingLimit int
	// RunningLimit is how many tasks of a project the pool lets run at a time:
	// a job that waits for that says so (0: any number).
	RunningLimit int
	// URLExpiry is how long the URLs of outputs work (0: 1 h).
	URLExpiry time.Duration
	// IdempotencyTTL is how long an idempotency key is kept (0: 7 days).
	IdempotencyTTL time.Duration
	// ProgressInterval is the least time between two messages of a watch that
	// tell progress alone (0: 250 ms).
	ProgressInterval time.Duration
	// WatchRefresh is how often a watch of a live job tells the job though
	// nothing was heard of it (0: 15 s). It covers a notice that was lost, and
	// shows both ends that the stream lives.
	WatchRefresh time.Duration
}

const (
	defaultMaxSizeBytes     = 100 << 30
	defaultURLExpiry        = time.Hour
	defaultIdempotencyTTL   = 7 * 24 * time.Hour
	defaultProgressInterval = 250 * time.Millisecond
	defaultWatchRefresh     = 15 * time.Second
)

// Store is what jobs need of the store.
type Store interface {
	CreateJob(ctx context.Context, j pipeline.Job, first pipeline.NewTask, a pipeline.Admission) (pipeline.Job, error)
	GetJob(ctx context.Context, id string) (pipeline.Job, error)
	ListJobs(ctx context.Context, f pipeline.JobFilter) ([]pipeline.Job, error)
	JobEvents(ctx context.Context, id string, after int64) ([]pipeline.Event, error)
	ReadStream(ctx context.Context, id string, run int, after int64) (pipeline.Stream, error)
	CancelJob(ctx context.Context, id string) (pipeline.Job, error)
	RetryJob(ctx context.Context, id string, expectRun int, first pipeline.NewTask, waitingLimit int) (pipeline.Job, error)
	DeleteJob(ctx context.Context, id string) error
	WatchJob(ctx context.Context, id string) (<-chan pipeline.JobNotice, error)
}

// Sources is what jobs need of the input bucket.
type Sources interface {
	Head(ctx context.Context, key string) (objectstore.ObjectInfo, error)
}

// Outputs is what jobs need of the output bucket.
type Outputs interface {
	PresignGet(ctx context.Context, key string, opts objectstore.GetOptions) (objectstore.SignedRequest, error)
}

// Deps are what a Service works with.
type Deps struct {
	Store Store
	In    Sources
	Out   Outputs
	// SettleUpload removes what was stored of an upload that ended without
	// its bytes.
	SettleUpload func(ctx context.Context, uploadID string) error
	Log          *slog.Logger
}

// Service is JobService. It is safe for concurrent use.
type Service struct {
	cfg  Config
	deps Deps
}

var _ tcoderv1connect.JobServiceHandler = (*Service)(nil)

// New returns a service.
func New(cfg Config, deps Deps) *Service {
	orDefault(&cfg.MaxSizeBytes, defaultMaxSizeBytes)
	orDefault(&cfg.URLExpiry, defaultURLExpiry)
	orDefault(&cfg.IdempotencyTTL, defaultIdempotencyTTL)
	orDefault(&cfg.ProgressInterval, defaultProgressInterval)
	orDefault(&cfg.WatchRefresh, defaultWatchRefresh)

	return &Service{cfg: cfg, deps: deps}
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// owned returns a job of the caller's project; another one's does not exist
// for it.
func (s *Service) owned(ctx context.Context, id string) (pipeline.Job, error) {
	j, err := s.deps.Store.GetJob(ctx, id)
	if err != nil {
		return pipeline.Job{}, err
	}
	if j.Project != interceptor.Project(ctx) {
		return pipeline.Job{}, pipeline.NewError(pipeline.ReasonJobNotFound, "no job has this id")
	}

	return j, nil
}

// message returns the message of a job.
func (s *Service) message(j pipeline.Job) *tcoderv1.Job {
	p := mapper.JobToProto(tell(j, time.Now()))
	if j.Wait == pipeline.WaitProject {
		p.Waiting.RunningLimit = uint32(s.cfg.RunningLimit)
	}

	return p
}

// firstTask is the task that every run begins with.
func firstTask() pipeline.NewTask { return pipeline.NewTask{Kind: pipeline.KindProbe} }

// storeError says that the object store didn't do op. What it wraps is for
// the log alone.
func storeError(op string, err error) error {
	if errors.Is(err, objectstore.ErrUnavailable) {
		return &pipeline.Error{
			Reason: pipeline.ReasonObjectStoreUnavailable, Message: "the object store can't be reached", Cause: err,
		}
	}

	return fmt.Errorf("%s: %w", op, err)
}
