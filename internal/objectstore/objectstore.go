// Package objectstore is the port to the place where the bytes of videos live.
//
// A [Store] is bound to one bucket and speaks in object keys. Bytes of uploads
// and outputs never pass through it: clients and workers move them with the
// presigned requests it signs, and it only reads and writes the small objects
// of the control plane (playlists, manifests).
//
// Contract, for every method unless it says otherwise:
//   - Sizes are bytes, ETags come without quotes, times are UTC.
//   - A key is 1 to 1,024 bytes of UTF-8 without a leading or trailing slash
//     and without empty, "." or ".." segments. No key may be a directory of
//     another ("a" and "a/b"), and no segment longer than 255 bytes: stores on
//     a file system refuse that, so keys are designed to work on both. A store
//     may return any unclassified error for a key outside of this.
//   - Errors carry the operation and the key, wrap one of the Err values of
//     this package where one fits, or the error of the context when that ended
//     the call, and never hold a credential or a signed URL. An error that
//     wraps neither means a wrong request: repeating it can't succeed.
//   - Methods are safe for concurrent use. Transient failures are retried a
//     few times inside; the caller's context bounds the whole call.
//
// The conformance suite is in objectstoretest; the adapter for S3 and R2 in s3.
package objectstore

import (
	"context"
	"errors"
	"io"
	"time"
)

// The classes of failure a caller may act on; test with [errors.Is].
var (
	// ErrNotFound says that no object has this key.
	ErrNotFound = errors.New("object not found")
	// ErrUploadNotFound says that no multipart upload has this id under this
	// key: it never existed, was aborted or expired, or was completed.
	ErrUploadNotFound = errors.New("multipart upload not found")
	// ErrPrecondition says that the object exists and the write asked that it
	// doesn't, or is another one than the write asked for.
	ErrPrecondition = errors.New("object is not as the write asked")
	// ErrInvalidPart says that the list of parts doesn't match what was
	// uploaded: empty, a number twice, a part missing, another ETag, or a part
	// other than the last below [MinPartSizeBytes].
	ErrInvalidPart = errors.New("invalid part list")
	// ErrUnavailable says that the store could not be asked or did not serve:
	// no connection, throttled, a server error, refused credentials, a missing
	// bucket. The same call may succeed later.
	ErrUnavailable = errors.New("object store unavailable")
)

// Limits shared by S3 and R2.
const (
	// MaxPutSizeBytes is the largest object of a single PUT and the largest
	// part (R2: 5 GiB less 5 MiB).
	MaxPutSizeBytes int64 = 5<<30 - 5<<20
	// MinPartSizeBytes is the least size of every part but the last.
	MinPartSizeBytes int64 = 5 << 20
	// MaxParts is the greatest part number; the first is 1.
	MaxParts = 10_000
	// MinExpires and MaxExpires bound the life of a signed request.
	MinExpires = time.Second
	MaxExpires = 7 * 24 * time.Hour
)

// Store is one bucket.
type Store interface {
	Signer
	Multipart
	Objects
}

// Signer makes requests that somebody without credentials can send until they
// expire. Signing is pure computation: no network, and no check that the
// object or upload exists. Clients may reach the store by another address than
// the control plane does, so the host of a signed URL may differ from the
// configured endpoint. A signed request can be repeated until it expires.
//
// The store answers a signed request with 403 (some stores 400) when it has
// expired, or when a signed header or the length of the body differs.
//
// Errors: only for arguments out of range, unclassified.
type Signer interface {
	// PresignPut signs the upload of a whole object.
	PresignPut(ctx context.Context, req PutRequest) (SignedRequest, error)
	// PresignGet signs a download. Range headers are not signed: the holder
	// may read any range, any number of times.
	PresignGet(ctx context.Context, key string, opts GetOptions) (SignedRequest, error)
	// PresignPart signs the upload of one part of sizeBytes (1 to
	// [MaxPutSizeBytes]) as partNumber (1 to [MaxParts]). The answer to the
	// upload carries the part's ETag. Uploading a number again replaces it.
	PresignPart(ctx context.Context, key, uploadID string, partNumber int, sizeBytes int64,
		expires time.Duration) (SignedRequest, error)
}

// Multipart uploads large objects in parts. R2 demands that all parts but the
// last have the same size and other stores don't check it, so whoever plans
// the parts has to keep to it.
type Multipart interface {
	// CreateMultipart starts an upload and returns its id. Nothing is visible
	// under key before it is completed. Not idempotent: each call starts
	// another upload.
	CreateMultipart(ctx context.Context, key string, opts MultipartOptions) (uploadID string, err error)
	// ListParts returns all uploaded parts, ordered by number.
	// Errors: [ErrUploadNotFound].
	ListParts(ctx context.Context, key, uploadID string) ([]Part, error)
	// CompleteMultipart makes the object of the given parts, in any order;
	// [Part.SizeBytes] is not looked at. A replay of a completed upload
	// answers nil or [ErrUploadNotFound], depending on the store: ask Head
	// whether the object is there.
	// Errors: [ErrInvalidPart], [ErrUploadNotFound].
	CompleteMultipart(ctx context.Context, key, uploadID string, parts []Part) error
	// AbortMultipart drops the upload and its parts. Idempotent: an unknown
	// upload is no error, so it can't undo a completed one either.
	AbortMultipart(ctx context.Context, key, uploadID string) error
	// ListMultipart calls visit for every upload that was neither completed nor
	// aborted, of a key that starts with prefix, and stops with the first error of
	// visit, which it returns as it is.
	ListMultipart(ctx context.Context, prefix string, visit func(key, uploadID string) error) error
}

// Objects reads and writes whole objects.
type Objects interface {
	// Head describes an object. Errors: [ErrNotFound].
	Head(ctx context.Context, key string) (ObjectInfo, error)
	// Put writes a small object, at most [MaxPutSizeBytes], atomically: a
	// reader sees the old or the new one. Seeking lets it be sent again after
	// a failed attempt. Errors: [ErrPrecondition] if asked for; also when an
	// earlier attempt of the same call was carried out and its answer lost.
	Put(ctx context.Context, key string, body io.ReadSeeker, opts PutOptions) error
	// Get opens an object; the caller closes the reader. ctx covers reading
	// too, and an error of the reader is unclassified. Errors: [ErrNotFound].
	Get(ctx context.Context, key string) (io.ReadCloser, ObjectInfo, error)
	// Delete removes an object. Idempotent: a missing object is no error.
	Delete(ctx context.Context, key string) error
	// DeletePrefix removes every object whose key starts with prefix (a plain
	// string prefix: end it with a slash to mean a folder), one by one, some
	// at a time. An empty prefix is refused. After an error some are gone;
	// calling again goes on. Objects written meanwhile may survive.
	DeletePrefix(ctx context.Context, prefix string) error
	// List calls visit for every object whose key starts with prefix, in the
	// order of keys, and stops with the first error of visit, which it returns
	// as it is. ContentType is not known here.
	List(ctx context.Context, prefix string, visit func(ObjectInfo) error) error
}

// PutRequest says what a presigned upload may write.
type PutRequest struct {
	// Key of the object.
	Key string
	// SizeBytes is the exact length of the body, at most [MaxPutSizeBytes].
	// 0 leaves the length open; only for writers who may write anything.
	SizeBytes int64
	// ContentType that the upload has to declare; empty leaves it open.
	ContentType string
	// CacheControl that the upload has to declare, answered to every reader;
	// empty leaves it to the store.
	CacheControl string
	// Expires is the life of the request: [MinExpires] to [MaxExpires],
	// rounded down to whole seconds.
	Expires time.Duration
	// IfNoneMatch refuses the upload with 412 when the object exists.
	IfNoneMatch bool
}

// GetOptions says how long a presigned download is good for and what the
// answer declares.
type GetOptions struct {
	// Expires is the life of the request: [MinExpires] to [MaxExpires],
	// rounded down to whole seconds.
	Expires time.Duration
	// ContentDisposition and ContentType, when set, replace those headers in
	// the answer.
	ContentDisposition string
	ContentType        string
}

// PutOptions are the properties of an object written by Put.
type PutOptions struct {
	// ContentType and CacheControl are answered to every reader; empty leaves
	// them to the store.
	ContentType  string
	CacheControl string
	// IfNoneMatch makes Put fail with [ErrPrecondition] when the object exists.
	IfNoneMatch bool
	// IfMatch, an ETag, makes Put fail with [ErrPrecondition] when the object has
	// another one, and with that or [ErrNotFound] when there is none.
	IfMatch string
}

// MultipartOptions are the properties of an object uploaded in parts. They are
// answered to every reader; empty leaves them to the store.
type MultipartOptions struct {
	ContentType  string
	CacheControl string
}

// SignedRequest is a request anybody may send until it expires. It is a
// secret for as long.
type SignedRequest struct {
	Method string
	URL    string
	// Header has to be sent exactly like this. The length of the body is
	// signed too where a size was given, but not listed: HTTP clients set
	// Content-Length by themselves (browsers allow nothing else), so the body
	// must have a known length and not be sent in chunks.
	Header map[string]string
	// ExpiresAt is when the store stops accepting it, by the clock of the
	// signer.
	ExpiresAt time.Time
}

// Part is one uploaded part of a multipart upload.
type Part struct {
	// Number is 1 to [MaxParts].
	Number int
	// ETag as the store answered it; quotes are accepted.
	ETag string
	// SizeBytes is set by ListParts.
	SizeBytes int64
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	Key       string
	SizeBytes int64
	// ETag changes with the content. It is the MD5 of an object written by one
	// PUT, not of one written in parts.
	ETag         string
	ContentType  string
	LastModified time.Time
}
