package pool

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

const (
	// allObjects is up to how many objects of a result each one is looked at;
	// beyond that, the ends of every rendition are.
	allObjects  = 50
	headsAtOnce = 8
)

// mismatchError says that the store doesn't have what a result names. It is
// meant for users.
type mismatchError struct {
	name string
	what string
}

func (e *mismatchError) Error() string {
	return fmt.Sprintf("The object %s %s.", e.name, e.what)
}

// verifyObjects looks in the store for what a result names. The error is a
// *mismatchError if it isn't there.
func (s *Service) verifyObjects(ctx context.Context, prefix string, r media.EncodeResult) error {
	all, ends := objectsOf(r)
	for _, o := range all {
		if !writable(o) {
			return &mismatchError{"of the result", "has a name, size or type that is not allowed"}
		}
	}
	if len(all) > allObjects {
		all = ends
	}
	heads, ctx := errgroup.WithContext(ctx)
	heads.SetLimit(headsAtOnce)
	for _, o := range all {
		heads.Go(func() error { return s.verifyObject(ctx, prefix+o.Name, o) })
	}
	return heads.Wait()
}

// verifyObject looks for one object. The error is as verifyObjects'.
func (s *Service) verifyObject(ctx context.Context, key string, o media.EncodedObject) error {
	info, err := s.deps.Out.Head(ctx, key)
	switch {
	case errors.Is(err, objectstore.ErrNotFound):
		return &mismatchError{o.Name, "isn't in the store"}
	case err != nil:
		return err
	case info.SizeBytes != o.SizeBytes:
		return &mismatchError{o.Name, fmt.Sprintf("has %d bytes in the store, the result says %d", info.SizeBytes, o.SizeBytes)}
	}
	return nil
}

// objectsOf returns all objects of a result, and those at the ends of each
// rendition.
func objectsOf(r media.EncodeResult) (all, ends []media.EncodedObject) {
	for _, e := range r.Renditions {
		for _, single := range []*media.EncodedObject{e.InitSegment, e.File} {
			if single != nil {
				all, ends = append(all, *single), append(ends, *single)
			}
		}
		all = append(all, e.Segments...)
		if n := len(e.Segments); n > 0 {
			ends = append(ends, e.Segments[0], e.Segments[n-1])
		}
	}
	return all, ends
}
