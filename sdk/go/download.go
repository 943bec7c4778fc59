package tcoder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

const defaultDownloadParallel = 8

// DownloadOptions say where the files of a job go.
type DownloadOptions struct {
	// Dir is the folder to write to; it is made if it doesn't exist.
	Dir string
	// Parallel is how many files are fetched at a time. 0 means 8.
	Parallel int
	// OnProgress is called as bytes arrive, from one goroutine at a time. It
	// never falls.
	OnProgress func(doneBytes, totalBytes int64)
}

// Downloaded are the files of a job on this computer.
type Downloaded struct {
	// Files are the paths of all files, in the server's order.
	Files []string
	// Entries are the paths of the files to open, one per output: its master
	// playlist or its largest MP4.
	Entries []string
}

// Download fetches every file of a completed job. The names are those of the
// output's objects, below Dir if the job has one output, else below
// Dir/<output>. Each file appears when it is whole and has its stated size; a
// file that is there already is replaced. Names that would leave Dir are
// refused.
//
// Errors beside those of the server: OBJECT_STORE_UNAVAILABLE when the store
// refuses or can't be reached, OUTPUT_INVALID for a name or size that is wrong.
func (c *Client) Download(ctx context.Context, jobID string, opts DownloadOptions) (*Downloaded, error) {
	job, err := c.GetJob(ctx, jobID)
	if err != nil {
		return nil, err
	}
	d := &downloading{client: c, jobID: jobID, folders: len(job.GetOutputs()) > 1}
	files, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil { //nolint:gosec // what the caller can read, others may
		return nil, fmt.Errorf("tcoder: %w", err)
	}
	if d.root, err = os.OpenRoot(opts.Dir); err != nil {
		return nil, fmt.Errorf("tcoder: %w", err)
	}
	defer d.root.Close() //nolint:errcheck // nothing is written through the handle itself
	if opts.Parallel <= 0 {
		opts.Parallel = defaultDownloadParallel
	}
	var total int64
	for _, file := range files {
		total += file.size
	}
	d.progress = newProgress(total, opts.OnProgress)
	if err := d.fetchAll(ctx, files, opts.Parallel); err != nil {
		return nil, err
	}
	d.progress.finish()

	return d.result(opts.Dir, job, files), nil
}

// downloading is one call of Download.
type downloading struct {
	client   *Client
	jobID    string
	folders  bool // one per output
	root     *os.Root
	progress *progress
}

// remoteFile is one file to fetch.
type remoteFile struct {
	number uint32 // in the list
	page   string // token of the page of the list that it was on
	output string
	key    string
	name   string // path below the folder, in slashes
	size   int64
	signed *tcoderv1.SignedRequest
}

func (d *downloading) list(ctx context.Context) ([]*remoteFile, error) {
	var files []*remoteFile
	for token := ""; ; {
		objects, next, err := d.client.outputPage(ctx, d.jobID, "", token)
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			file, err := d.place(object)
			if err != nil {
				return nil, err
			}
			file.page = token
			file.number = uint32(len(files))
			files = append(files, file)
		}
		if next == "" {
			return files, nil
		}
		token = next
	}
}

// place decides where an object goes.
func (d *downloading) place(object *tcoderv1.ReadableObject) (*remoteFile, error) {
	name := object.GetObject().GetName()
	if d.folders {
		if strings.ContainsAny(object.GetOutput(), `/\`) {
			return nil, badOutput(fmt.Sprintf("the output has an unsafe name: %q", object.GetOutput()))
		}
		name = object.GetOutput() + "/" + name
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name || name == "." {
		return nil, badOutput(fmt.Sprintf("the output has a file of an unsafe name: %q", name))
	}

	return &remoteFile{
		output: object.GetOutput(),
		key:    object.GetObject().GetKey(),
		name:   name,
		size:   int64(object.GetObject().GetSizeBytes()),
		signed: signedGet(object),
	}, nil
}

func signedGet(object *tcoderv1.ReadableObject) *tcoderv1.SignedRequest {
	return &tcoderv1.SignedRequest{
		Method: http.MethodGet, Url: object.GetUrl(), ExpiresAt: object.GetExpiresAt(),
	}
}

func badOutput(message string) *Error {
	return &Error{
		Code:    connect.CodeDataLoss,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID,
		Message: message,
	}
}

func (d *downloading) fetchAll(ctx context.Context, files []*remoteFile, parallel int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	queue := make(chan *remoteFile)
	var fetchers sync.WaitGroup
	for range min(parallel, len(files)) {
		fetchers.Go(func() {
			for file := range queue {
				if err := d.fetch(ctx, file); err != nil {
					stop(err)

					return
				}
			}
		})
	}
	feed(ctx, queue, files)
	fetchers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx) //nolint:wrapcheck // of fetch
	}

	return nil
}

// fetch writes a file beside its place and moves it there when it is whole.
func (d *downloading) fetch(ctx context.Context, file *remoteFile) (err error) {
	local := filepath.FromSlash(file.name)
	if err := d.root.MkdirAll(filepath.Dir(local), 0o755); err != nil {
		return fmt.Errorf("tcoder: %w", err)
	}
	partial := filepath.Join(filepath.Dir(local), "."+filepath.Base(local)+"."+rand.Text()[:8]+".part")
	out, err := d.root.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("tcoder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(d.root.Remove(partial)))
		}
	}()
	if err := errors.Join(d.copyTo(ctx, out, file), out.Close()); err != nil {
		return err
	}
	if err := d.root.Rename(partial, local); err != nil {
		return fmt.Errorf("tcoder: %w", err)
	}

	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	return err
}

// copyTo fetches a file, over as many connections as it takes: each goes on
// where the one before was cut.
func (d *downloading) copyTo(ctx context.Context, out *os.File, file *remoteFile) error {
	retry := d.client.newRetrier()
	told := d.progress.part(file.number)
	refusals := 0
	for done := int64(0); ; {
		if expiresSoon(file.signed) {
			refusals = maxRefusals // what comes is fresh
			if err := d.signAgain(ctx, file); err != nil {
				return err
			}
		}
		n, err := d.client.get(ctx, file.signed, done, file.size, func(n int64) { told(done + n) }, out)
		if done += n; n > 0 {
			retry.reset(d.client.retry.Patience)
		}
		var refused *refusedError
		var write *localWriteError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return contextError(ctx)
		case errors.As(err, &write):
			return fmt.Errorf("tcoder: write %s: %w", file.name, write.error)
		case errors.Is(err, errWrongSize):
			return badOutput(fmt.Sprintf("%s doesn't have its stated size of %d bytes", file.name, file.size))
		case errors.As(err, &refused) && !refused.temporary():
			if refusals++; refusals >= maxRefusals {
				return storeError("the object store refused to give "+file.name, err)
			}
			if err := d.signAgain(ctx, file); err != nil {
				return err
			}
		case !retry.wait(ctx, 0):
			if ctx.Err() != nil {
				return contextError(ctx)
			}

			return storeError("the download of "+file.name+" failed", err)
		}
	}
}

// signAgain reads the file's page of the list again, for fresh URLs.
func (d *downloading) signAgain(ctx context.Context, file *remoteFile) error {
	objects, _, err := d.client.outputPage(ctx, d.jobID, "", file.page)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if object.GetObject().GetKey() == file.key {
			file.signed = signedGet(object)

			return nil
		}
	}

	return badOutput(file.name + " is not there any more")
}

func (d *downloading) result(dir string, job *tcoderv1.Job, files []*remoteFile) *Downloaded {
	result := &Downloaded{}
	for _, file := range files {
		result.Files = append(result.Files, filepath.Join(dir, filepath.FromSlash(file.name)))
	}
	for _, output := range job.GetOutputs() {
		name := output.GetEntry()
		if d.folders {
			name = output.GetName() + "/" + name
		}
		result.Entries = append(result.Entries, filepath.Join(dir, filepath.FromSlash(name)))
	}

	return result
}

var errWrongSize = errors.New("wrong size")

// localWriteError is an error of this computer, which no retry helps.
type localWriteError struct{ error }

func (e *localWriteError) Unwrap() error { return e.error }

// get reads an object from an offset to its end into out, and returns how
// many bytes it wrote.
func (c *Client) get(ctx context.Context, signed *tcoderv1.SignedRequest, offset, size int64,
	told func(int64), out io.Writer,
) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, signed.GetMethod(), signed.GetUrl(), nil)
	if err != nil {
		return 0, errors.New("the server gave a URL that can't be used") //nolint:err113 // never holds the URL
	}
	// Without it the transport would ask for gzip and hide the real length.
	req.Header.Set("Accept-Encoding", "identity")
	want := http.StatusOK
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		want = http.StatusPartialContent
	}
	res, err := c.transfer.Do(req)
	if err != nil {
		return 0, withoutURL(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	if res.StatusCode != want {
		return 0, refusal(res)
	}
	if res.ContentLength >= 0 && offset+res.ContentLength != size {
		return 0, errWrongSize
	}
	// One byte more than is left tells an object that is too long.
	n, err := io.Copy(&countingWriter{out: out, told: told}, io.LimitReader(res.Body, size-offset+1))
	switch {
	case offset+n == size:
		return n, nil
	case err != nil:
		return n, withoutURL(err)
	default:
		return n, errWrongSize
	}
}

type countingWriter struct {
	out  io.Writer
	n    int64
	told func(int64)
}

// Write implements io.Writer.
func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	w.n += int64(n)
	w.told(w.n)
	if err != nil {
		return n, &localWriteError{err}
	}

	return n, nil
}
