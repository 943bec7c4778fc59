package celltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// Objects is a bucket in memory. An upload that is signed has happened: nobody
// sends bytes in a cell.
type Objects struct {
	Begun atomic.Int32  // multipart uploads
	Slow  time.Duration // what it takes to begin one

	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	content []byte
	info    objectstore.ObjectInfo
}

// NewObjects returns an empty bucket.
func NewObjects() *Objects {
	return &Objects{objects: map[string]object{}, Slow: 20 * time.Millisecond}
}

// PresignGet implements [objectstore.Signer].
func (o *Objects) PresignGet(_ context.Context, key string, opts objectstore.GetOptions) (objectstore.SignedRequest, error) {
	return signed("GET", key, opts.Expires), nil
}

// PresignPut makes the object.
func (o *Objects) PresignPut(_ context.Context, req objectstore.PutRequest) (objectstore.SignedRequest, error) {
	o.put(req.Key, nil, objectstore.ObjectInfo{SizeBytes: req.SizeBytes, ContentType: req.ContentType})

	return signed("PUT", req.Key, req.Expires), nil
}

// PresignPart signs one that nobody sends.
func (o *Objects) PresignPart(
	_ context.Context, key, _ string, _ int, _ int64, expires time.Duration,
) (objectstore.SignedRequest, error) {
	return signed("PUT", key, expires), nil
}

// CreateMultipart takes its time.
func (o *Objects) CreateMultipart(ctx context.Context, _ string, _ objectstore.MultipartOptions) (string, error) {
	select {
	case <-time.After(o.Slow):
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}

	o.Begun.Add(1)

	return "upload", nil
}

// CompleteMultipart makes an empty object.
func (o *Objects) CompleteMultipart(_ context.Context, key, _ string, _ []objectstore.Part) error {
	o.put(key, nil, objectstore.ObjectInfo{})

	return nil
}

// AbortMultipart implements [objectstore.Multipart].
func (o *Objects) AbortMultipart(context.Context, string, string) error { return nil }

// ListMultipart knows of none.
func (o *Objects) ListMultipart(context.Context, string, func(string, string) error) error {
	return nil
}

func signed(method, key string, expires time.Duration) objectstore.SignedRequest {
	return objectstore.SignedRequest{Method: method, URL: "http://objects/" + key, ExpiresAt: time.Now().Add(expires)}
}

// Head implements [objectstore.Objects].
func (o *Objects) Head(_ context.Context, key string) (objectstore.ObjectInfo, error) {
	o.mu.Lock()
	defer o.mu.Unlock()

	found, ok := o.objects[key]
	if !ok {
		return objectstore.ObjectInfo{}, fmt.Errorf("head %s: %w", key, objectstore.ErrNotFound)
	}

	return found.info, nil
}

// Put implements [objectstore.Objects].
func (o *Objects) Put(_ context.Context, key string, body io.ReadSeeker, opts objectstore.PutOptions) error {
	content, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}

	o.put(key, content, objectstore.ObjectInfo{SizeBytes: int64(len(content)), ContentType: opts.ContentType})

	return nil
}

func (o *Objects) put(key string, content []byte, info objectstore.ObjectInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()

	info.Key, info.ETag, info.LastModified = key, "etag", time.Now()
	o.objects[key] = object{content: content, info: info}
}

// Get implements [objectstore.Objects].
func (o *Objects) Get(ctx context.Context, key string) (io.ReadCloser, objectstore.ObjectInfo, error) {
	info, err := o.Head(ctx, key)
	if err != nil {
		return nil, info, err
	}

	o.mu.Lock()
	defer o.mu.Unlock()

	return io.NopCloser(bytes.NewReader(o.objects[key].content)), info, nil
}

// Delete implements [objectstore.Objects].
func (o *Objects) Delete(_ context.Context, key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()

	delete(o.objects, key)

	return nil
}

// DeletePrefix implements [objectstore.Objects].
func (o *Objects) DeletePrefix(_ context.Context, prefix string) error {
	if prefix == "" {
		return errors.New("delete prefix: it is empty")
	}

	o.mu.Lock()
	defer o.mu.Unlock()

	maps.DeleteFunc(o.objects, func(key string, _ object) bool { return strings.HasPrefix(key, prefix) })

	return nil
}

// List implements [objectstore.Objects].
func (o *Objects) List(_ context.Context, prefix string, visit func(objectstore.ObjectInfo) error) error {
	o.mu.Lock()
	found := maps.Clone(o.objects)
	o.mu.Unlock()

	for _, key := range slices.Sorted(maps.Keys(found)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}

		if err := visit(found[key].info); err != nil {
			return err
		}
	}

	return nil
}
