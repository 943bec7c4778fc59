package tcoder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

const defaultUploadParallel = 4

// UploadOptions say what is uploaded and what its job shall produce.
type UploadOptions struct {
	// Filename is the name to declare, without a path. UploadFile takes the
	// file's when it is empty.
	Filename string
	// SizeBytes is the exact size. UploadFile sets it.
	SizeBytes int64
	// ContentType is the MIME type to declare; empty means
	// application/octet-stream.
	ContentType string
	// Spec is what to produce; nil means the preset `default`.
	Spec *tcoderv1.JobSpec
	// IdempotencyKey names this upload for 7 days: a later call with the same
	// key, file and options goes on where an earlier one was cut off, or
	// returns its job. Empty: one is made up.
	IdempotencyKey string
	// Labels are the caller's own data, returned with the job.
	Labels map[string]string
	// Priority starts the job before others of lower priority. -100 to 100.
	Priority int32
	// Parallel is how many parts are sent at a time. 0 means 4.
	Parallel int
	// OnOpen is called once the upload and its job exist, before any byte is
	// sent. Whoever gives up later can cancel the job.
	OnOpen func(*tcoderv1.Upload)
	// OnProgress is called as bytes are sent, from one goroutine at a time. It
	// never falls, and what an earlier call sent counts.
	OnProgress func(sentBytes, totalBytes int64)
}

// UploadResult is a finished upload.
type UploadResult struct {
	// Upload as the server knows it.
	Upload *tcoderv1.Upload
	// Job that has started with it.
	Job *tcoderv1.Job
}

// UploadFile uploads the file at path; see [Client.Upload]. A path that can't
// be a video is refused before any call: a folder, an empty file.
func (c *Client) UploadFile(ctx context.Context, path string, opts UploadOptions) (*UploadResult, error) {
	file, size, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	opts.SizeBytes = size
	if opts.Filename == "" {
		opts.Filename = filepath.Base(path)
	}

	return c.Upload(ctx, file, opts)
}

func openSource(path string) (*os.File, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, sourceError(path, err)
	}
	info, err := file.Stat()
	if err == nil {
		err = checkSource(path, info)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}

	return file, info.Size(), nil
}

// CheckFile returns the error that UploadFile would give for path without
// asking the server: it is missing, can't be read, is no regular file, or empty.
func CheckFile(path string) error {
	file, _, err := openSource(path)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return sourceError(path, err)
	}

	return nil
}

func checkSource(path string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return invalid(tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, path+" is a folder, not a video file")
	case !info.Mode().IsRegular():
		return invalid(tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, path+" is not a regular file")
	case info.Size() == 0:
		return invalid(tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID, path+" is empty")
	default:
		return nil
	}
}

func sourceError(path string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	e := invalid(tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, fmt.Sprintf("%s: %v", path, err))
	e.cause = err

	return e
}

func invalid(reason tcoderv1.ErrorReason, message string) *Error {
	return &Error{Code: connect.CodeInvalidArgument, Reason: reason, Message: message}
}

// Upload sends SizeBytes bytes of source to the object store, straight and
// without passing the server, and starts their job. Large sources go in parts,
// several at a time; source has to allow concurrent ReadAt, as files do.
//
// When it fails or ctx ends, the upload stays open until its deadline, so that
// a call with the same IdempotencyKey can go on; cancel its job to drop it.
//
// A project that has as many waiting jobs as it may is refused with QUEUE_FULL
// before any byte is sent, and isn't waited for: see [Client.CreateJob].
//
// Errors beside those of the server: SIZE_INVALID when source is shorter than
// SizeBytes, OBJECT_STORE_UNAVAILABLE when the store refuses the bytes or
// can't be reached.
func (c *Client) Upload(ctx context.Context, source io.ReaderAt, opts UploadOptions) (*UploadResult, error) {
	if opts.SizeBytes <= 0 {
		return nil, invalid(tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID, "the size has to be at least 1 byte")
	}
	resumable := opts.IdempotencyKey != ""
	if !resumable {
		opts.IdempotencyKey = newIdempotencyKey()
	}
	if opts.Parallel <= 0 {
		opts.Parallel = defaultUploadParallel
	}
	u := &uploading{client: c, source: source, opts: opts, progress: newProgress(opts.SizeBytes, opts.OnProgress)}
	opened, err := u.open(ctx)
	if err != nil {
		return nil, err
	}
	if opts.OnOpen != nil {
		opts.OnOpen(opened.GetUpload())
	}
	var parts []*tcoderv1.UploadedPart
	switch {
	case opened.GetUpload().GetState() != tcoderv1.UploadState_UPLOAD_STATE_OPEN:
		// An earlier call ended it; CompleteUpload tells how.
	case opened.GetPut() != nil:
		err = u.sendWhole(ctx, opened.GetPut())
	default:
		parts, err = u.sendParts(ctx, opened, resumable)
	}
	if err != nil {
		return nil, err
	}
	done, err := call(ctx, c, completeTimeout, c.uploads.CompleteUpload,
		&tcoderv1.CompleteUploadRequest{UploadId: opened.GetUpload().GetId(), Parts: parts})
	if err != nil {
		return nil, err
	}
	u.progress.finish()

	return &UploadResult{Upload: done.GetUpload(), Job: done.GetJob()}, nil
}

// AbortUpload gives an open upload up, removes what was stored of it, and
// cancels its job.
func (c *Client) AbortUpload(ctx context.Context, uploadID string) (*tcoderv1.Upload, error) {
	res, err := call(ctx, c, defaultCallTimeout, c.uploads.AbortUpload,
		&tcoderv1.AbortUploadRequest{UploadId: uploadID})

	return res.GetUpload(), err
}

// GetUpload reads an upload, with the parts that the store holds of it.
func (c *Client) GetUpload(ctx context.Context, uploadID string) (*tcoderv1.GetUploadResponse, error) {
	return call(ctx, c, defaultCallTimeout, c.uploads.GetUpload, &tcoderv1.GetUploadRequest{UploadId: uploadID})
}

// uploading is one call of Upload.
type uploading struct {
	client   *Client
	source   io.ReaderAt
	opts     UploadOptions
	progress *progress
}

// open opens the upload, or, with a known key, gives the first one with fresh
// URLs.
func (u *uploading) open(ctx context.Context) (*tcoderv1.CreateUploadResponse, error) {
	return call(ctx, u.client, defaultCallTimeout, u.client.uploads.CreateUpload, &tcoderv1.CreateUploadRequest{
		Filename:       u.opts.Filename,
		SizeBytes:      uint64(u.opts.SizeBytes),
		ContentType:    u.opts.ContentType,
		Spec:           u.opts.Spec,
		IdempotencyKey: u.opts.IdempotencyKey,
		Priority:       u.opts.Priority,
		Labels:         u.opts.Labels,
	})
}

func (u *uploading) sendWhole(ctx context.Context, first *tcoderv1.SignedRequest) error {
	piece := piece{source: u.source, size: u.opts.SizeBytes, sent: u.progress.part(0)}
	_, err := u.client.put(ctx, piece, first, func(ctx context.Context) (*tcoderv1.SignedRequest, error) {
		again, err := u.open(ctx)
		if err != nil {
			return nil, err
		}
		if again.GetPut() == nil {
			return nil, errAlreadyStored
		}

		return again.GetPut(), nil
	})

	return err
}

func newIdempotencyKey() string {
	return "sdk-" + rand.Text()
}
