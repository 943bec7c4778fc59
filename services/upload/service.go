// Package upload is UploadService: it takes videos in without touching a byte
// of them.
//
// A client gets presigned requests, sends the bytes straight to the object
// store, and says that it is done. What it says is a hint; what the store
// holds is the truth, for completing an upload, for resuming one, and for
// what becomes of one whose deadline has passed (Settle). Every call may be
// repeated after a lost answer.
package upload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// Config says what uploads may be. The zero value of a field means its default.
type Config struct {
	// MaxSizeBytes is the largest upload, at most 5 TiB less 5 GiB, which is
	// what the stores hold (0: 100 GiB).
	MaxSizeBytes int64
	// ProjectMaxSizeBytes is that of some projects in its place.
	ProjectMaxSizeBytes map[string]int64
	// WaitingLimit is how many jobs of a project may wait or be uploading at
	// most; another one is refused with QUEUE_FULL (0: any number).
	WaitingLimit int
	// SinglePutBytes is the largest upload sent in one PUT; a larger one is
	// sent in parts (0: 64 MiB).
	SinglePutBytes int64
	// URLExpiry is how long a presigned request works (0: 1 h, which is the most:
	// after that the store takes it that nobody can write to the object).
	URLExpiry time.Duration
	// Deadline is how long an upload stays open (0: 24 h).
	Deadline time.Duration
	// IdempotencyTTL is how long an idempotency key is kept (0: 7 days).
	IdempotencyTTL time.Duration
}

const (
	maxObjectBytes        = 5<<40 - 5<<30
	defaultMaxSizeBytes   = 100 << 30
	defaultSinglePutBytes = 64 << 20
	defaultDeadline       = 24 * time.Hour
	defaultIdempotencyTTL = 7 * 24 * time.Hour
)

// Store is what uploads need of the store.
type Store interface {
	pipeline.UploadStore
	GetJob(ctx context.Context, id string) (pipeline.Job, error)
}

// Bucket is what uploads need of the input bucket.
type Bucket interface {
	objectstore.Signer
	objectstore.Multipart
	Head(ctx context.Context, key string) (objectstore.ObjectInfo, error)
	Delete(ctx context.Context, key string) error
}

// Deps are what a Service works with.
type Deps struct {
	Store Store
	In    Bucket
	Log   *slog.Logger
}

// Service is UploadService. It is safe for concurrent use.
type Service struct {
	cfg  Config
	deps Deps
}

var _ tcoderv1connect.UploadServiceHandler = (*Service)(nil)

// New returns a service.
func New(cfg Config, deps Deps) *Service {
	if cfg.MaxSizeBytes == 0 {
		cfg.MaxSizeBytes = defaultMaxSizeBytes
	}
	cfg.MaxSizeBytes = min(cfg.MaxSizeBytes, maxObjectBytes)
	if cfg.SinglePutBytes == 0 {
		cfg.SinglePutBytes = defaultSinglePutBytes
	}
	cfg.SinglePutBytes = min(cfg.SinglePutBytes, objectstore.MaxPutSizeBytes)
	if cfg.URLExpiry == 0 {
		cfg.URLExpiry = pipeline.UploadURLLife
	}
	cfg.URLExpiry = min(cfg.URLExpiry, pipeline.UploadURLLife)
	if cfg.Deadline == 0 {
		cfg.Deadline = defaultDeadline
	}
	if cfg.IdempotencyTTL == 0 {
		cfg.IdempotencyTTL = defaultIdempotencyTTL
	}

	return &Service{cfg: cfg, deps: deps}
}

// owned returns an upload of the caller's project; another one's does not
// exist for it.
func (s *Service) owned(ctx context.Context, id string) (pipeline.Upload, error) {
	u, err := s.deps.Store.GetUpload(ctx, id)
	if err != nil {
		return pipeline.Upload{}, err
	}
	if u.Project != interceptor.Project(ctx) {
		return pipeline.Upload{}, pipeline.NewError(pipeline.ReasonUploadNotFound, "no upload has this id")
	}

	return u, nil
}

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
