package memstore

import (
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// idempotencyKey is a caller's key; each kind of create has its own.
type idempotencyKey struct{ kind, project, key string }

// idempotent is what a key made.
type idempotent struct {
	id          string
	fingerprint string
	expires     time.Time
}

// known returns what a key made before, empty if nothing.
// Errors: ReasonIdempotencyKeyReused.
func (s *Store) known(kind, project string, a pipeline.Admission) (string, error) {
	if a.IdempotencyKey == "" {
		return "", nil
	}

	first, ok := s.keys[idempotencyKey{kind, project, a.IdempotencyKey}]
	if !ok || s.passed(first.expires) {
		return "", nil
	}

	if first.fingerprint != a.Fingerprint {
		return "", keyReused()
	}

	return first.id, nil
}

func (s *Store) remember(kind, project string, a pipeline.Admission, id string) {
	if a.IdempotencyKey == "" {
		return
	}

	s.keys[idempotencyKey{kind, project, a.IdempotencyKey}] = idempotent{
		id: id, fingerprint: a.Fingerprint, expires: s.now.Add(max(a.KeyTTL, time.Millisecond)),
	}
}

// admit refuses one more waiting job of a project above a limit.
func (s *Store) admit(project string, limit int) error {
	waiting := 0

	for _, j := range s.jobs {
		if j.rec.Project == project && (j.rec.State == pipeline.JobUploading || j.rec.State == pipeline.JobPending) {
			waiting++
		}
	}

	if limit > 0 && waiting >= limit {
		return queueFull()
	}

	return nil
}
