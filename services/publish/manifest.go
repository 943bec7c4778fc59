package publish

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the ETag of S3, no secret hangs on it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"

	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

const (
	// writesAtOnce bounds the manifests written at a time.
	writesAtOnce = 8
	// putTries is how often a write is tried that another one came before.
	putTries = 8
	// maxManifestBytes bounds what is read of a manifest that is there.
	maxManifestBytes = 16 << 20
	// askedForAgain lets caches keep a manifest, but ask each time whether it is
	// still the same: it grows, and a later run replaces it.
	askedForAgain = "no-cache"
)

// etags are the ETags that manifests have as far as this replica knows.
type etags map[string]string

// write writes manifests: those that are named by others first, so that a
// player never follows a name to nothing.
func (p *Publisher) write(ctx context.Context, manifests []media.Manifest, known etags) error {
	var named, entries []media.Manifest
	for i, m := range manifests {
		if i+1 == len(manifests) || path.Dir(manifests[i+1].Key) != path.Dir(m.Key) {
			entries = append(entries, m) // the last of each output opens it
		} else {
			named = append(named, m)
		}
	}
	for _, batch := range [][]media.Manifest{named, entries} {
		written := make([]string, len(batch))
		writes, ctx := errgroup.WithContext(ctx)
		writes.SetLimit(writesAtOnce)
		for i, m := range batch {
			etag := known[m.Key]
			if etag == etagOf(m.Body) {
				written[i] = etag
				continue
			}
			writes.Go(func() error {
				var err error
				written[i], err = p.put(ctx, m, etag)
				return err
			})
		}
		if err := writes.Wait(); err != nil {
			return err
		}
		for i, m := range batch {
			known[m.Key] = written[i]
		}
	}
	return nil
}

// put writes a manifest in the place of the one with an ETag, or of none,
// unless what is there is as new, and returns the ETag of what is there then.
// Whoever writes names what it replaces, so a write that was held up somewhere
// can't undo a later one.
func (p *Publisher) put(ctx context.Context, m media.Manifest, etag string) (string, error) {
	for range putTries {
		err := p.out.Put(ctx, m.Key, bytes.NewReader(m.Body), objectstore.PutOptions{
			ContentType: m.ContentType, CacheControl: askedForAgain, IfNoneMatch: etag == "", IfMatch: etag,
		})
		if err == nil {
			return etagOf(m.Body), nil
		}
		if !errors.Is(err, objectstore.ErrPrecondition) && !errors.Is(err, objectstore.ErrNotFound) {
			return "", err
		}
		current, found, err := p.current(ctx, m.Key)
		if err != nil {
			return "", err
		}
		if etag = current.etag; found && !m.Supersedes(current.body) {
			return etag, nil
		}
	}
	return "", fmt.Errorf("%w: manifest %s was written by others %d times", objectstore.ErrUnavailable, m.Key, putTries)
}

// stored is a manifest as it is in the store.
type stored struct {
	body []byte
	etag string
}

// current reads a manifest; false if there is none.
func (p *Publisher) current(ctx context.Context, key string) (stored, bool, error) {
	body, info, err := p.out.Get(ctx, key)
	if err != nil {
		if errors.Is(err, objectstore.ErrNotFound) {
			return stored{}, false, nil
		}
		return stored{}, false, err
	}
	defer body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(body, maxManifestBytes))
	if err != nil {
		return stored{}, false, fmt.Errorf("%w: read manifest %s: %w", objectstore.ErrUnavailable, key, err)
	}
	return stored{body: text, etag: info.ETag}, true, nil
}

// etagOf is the ETag of an object written by one PUT.
func etagOf(body []byte) string {
	sum := md5.Sum(body) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}
