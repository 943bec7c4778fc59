package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// cancelTimeout bounds what is done after Ctrl-C.
const cancelTimeout = 15 * time.Second

// transcode uploads one file, follows its job and fetches the outputs.
type transcode struct {
	*base

	preset    string
	qualities []string
	noCopy    bool
	output    string
	filename  string
	priority  int32
	labels    map[string]string
	key       string

	display  *display
	opened   atomic.Pointer[tcoderv1.Upload]
	uploaded bool
}

func transcodeCommand(program *cli.Program) *cobra.Command {
	t := &transcode{}
	cmd := &cobra.Command{
		Use:   "transcode FILE|-",
		Short: "Upload a video, transcode it and fetch the outputs",
		Long: `Upload a video, transcode it and fetch the outputs.

FILE goes straight to the object store; - reads it from standard input. With
--output the outputs are written to a folder under the names that playlists
refer to: master.m3u8, 720p.mp4. Ctrl-C cancels the job.

With --json standard output gets one document: the job as it ended, or an error
if there is no job.`,
		Example: "  tcoder transcode clip.mp4 --preset hls-adaptive -o out/\n" +
			"  tcoder transcode clip.mov --preset web-optimized --quality 720p,360p -o out/",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return t.run(cmd.Context(), args[0]) },
	}
	t.base = newBase(program, cmd)
	flags := cmd.Flags()
	flags.StringVarP(&t.preset, "preset", "p", "", "preset, one of those that 'tcoder presets' lists (empty: default)")
	flags.StringSliceVarP(&t.qualities, "quality", "q", nil, "qualities to make instead of the preset's, such as 720p,360p")
	flags.BoolVar(&t.noCopy, "no-copy", false, "encode also what could be copied of the source")
	flags.StringVarP(&t.output, "output", "o", "", "folder to write the outputs to (empty: leave them in the store)")
	flags.StringVar(&t.filename, "filename", "", "name to declare instead of the file's")
	flags.Int32Var(&t.priority, "priority", 0, "start before jobs of lower priority, -100 to 100")
	flags.StringToStringVar(&t.labels, "label", nil, "data of your own to keep with the job, such as album=42")
	flags.StringVar(&t.key, "idempotency-key", "", "go on with the upload that had the same key, or return its job")
	completeFlag(cmd, "preset", t.completePresets)
	completeFlag(cmd, "quality", func(context.Context) []string {
		return []string{"2160p", "1440p", "1080p", "720p", "480p", "360p", "240p"}
	})

	return cmd
}

func (t *transcode) run(ctx context.Context, path string) error {
	client, err := t.connect()
	if err != nil {
		return err
	}
	if err := t.checkOutput(); err != nil {
		return err
	}
	if path != "-" {
		if err := tcoder.CheckFile(path); err != nil {
			return err
		}
	}
	t.display = newDisplay(t.Stderr)
	ctx, stop := t.Interruptible(ctx)
	defer stop()
	job, err := t.transcode(ctx, client, path)
	t.display.clear()
	if err != nil {
		job, err = t.giveUp(ctx, client, err)
	}
	if err != nil {
		return err
	}

	return t.finish(ctx, client, job)
}

// checkOutput finds out before the upload that the folder can't be written.
func (t *transcode) checkOutput() error {
	if t.output == "" {
		return nil
	}
	if err := os.MkdirAll(t.output, 0o755); err != nil { //nolint:gosec // outputs are no secret
		return fmt.Errorf("the output folder can't be made: %w", err)
	}
	probe, err := os.CreateTemp(t.output, ".tcoder-*")
	if err != nil {
		return fmt.Errorf("the output folder can't be written: %w", err)
	}

	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func (t *transcode) spec() *tcoderv1.JobSpec {
	spec := &tcoderv1.JobSpec{Preset: t.preset, Qualities: t.qualities}
	if t.noCopy {
		spec.Copy = tcoderv1.CopyPolicy_COPY_POLICY_NEVER
	}

	return spec
}

func (t *transcode) transcode(ctx context.Context, client *tcoder.Client, path string) (*tcoderv1.Job, error) {
	opts := tcoder.UploadOptions{
		Filename:       t.filename,
		Spec:           t.spec(),
		IdempotencyKey: t.key,
		Labels:         t.labels,
		Priority:       t.priority,
		OnOpen: func(u *tcoderv1.Upload) {
			t.opened.Store(u)
			t.display.linef("job %s", u.GetJobId())
		},
		OnProgress: (&transfer{display: t.display, label: "uploading"}).update,
	}
	startedAt := time.Now()
	uploaded, err := t.upload(ctx, client, path, opts)
	if err != nil {
		return nil, err
	}
	t.uploaded = true
	size := uploaded.Upload.GetSizeBytes()
	t.display.linef("uploaded %s in %s", formatBytes(float64(size)), formatTook(time.Since(startedAt)))
	var last *tcoderv1.Job
	// The event that a fast worker made meanwhile is worth a line too.
	for update, err := range client.Watch(ctx, uploaded.Job.GetId(), tcoder.AfterSequence(uploaded.Job.GetSequence())) {
		if err != nil {
			return nil, err
		}
		last = update.Job
		t.display.jobUpdate(update)
	}

	return last, nil
}

func (t *transcode) upload(ctx context.Context, client *tcoder.Client, path string, opts tcoder.UploadOptions) (
	*tcoder.UploadResult, error,
) {
	if path != "-" {
		return client.UploadFile(ctx, path, opts)
	}
	spool, size, err := t.spool()
	if err != nil {
		return nil, err
	}
	defer spool.Close() //nolint:errcheck // it has no name any more
	opts.SizeBytes = size
	if opts.Filename == "" {
		opts.Filename = "stdin"
	}

	return client.Upload(ctx, spool, opts)
}

// spool copies standard input to a file without a name: the size has to be
// known before the upload, and parts may be sent twice.
func (t *transcode) spool() (*os.File, int64, error) {
	if file, ok := t.Stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return nil, 0, cli.Usagef("standard input is a terminal: pipe a video into it")
	}
	file, err := os.CreateTemp("", "tcoder-stdin-*")
	if err != nil {
		return nil, 0, fmt.Errorf("keep standard input: %w", err)
	}
	size, err := io.Copy(file, t.Stdin)
	if err := errors.Join(err, os.Remove(file.Name())); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("keep standard input: %w", err), file.Close())
	}

	return file, size, nil
}

// giveUp leaves nothing behind of a job that this command can't or shall not
// follow to its end. After Ctrl-C it returns the job as it ended.
func (t *transcode) giveUp(ctx context.Context, client *tcoder.Client, cause error) (*tcoderv1.Job, error) {
	interrupted := errors.Is(context.Cause(ctx), cli.ErrInterrupted)
	if interrupted {
		cause = cli.ErrInterrupted
	}
	upload := t.opened.Load()
	switch {
	case upload == nil:
		return nil, cause
	case !t.uploaded && t.key != "":
		t.display.linef("the upload stays open: the same command goes on with it")

		return nil, cause
	case t.uploaded && !interrupted:
		t.display.linef("the job goes on: follow it with tcoder jobs watch %s", upload.GetJobId())

		return nil, cause
	}
	t.display.linef("canceling job %s", upload.GetJobId())
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	job, err := t.cancel(ctx, client, upload)
	switch {
	case !interrupted:
		return nil, cause
	case err != nil:
		return nil, fmt.Errorf("job %s may still be running: %w", upload.GetJobId(), err)
	default:
		return job, nil
	}
}

// cancel ends a job, with what was stored of its upload if that is open.
func (t *transcode) cancel(ctx context.Context, client *tcoder.Client, upload *tcoderv1.Upload) (*tcoderv1.Job, error) {
	if !t.uploaded {
		_, err := client.AbortUpload(ctx, upload.GetId())
		if tcoder.ReasonOf(err) != tcoderv1.ErrorReason_ERROR_REASON_UPLOAD_COMPLETED {
			if err != nil {
				return nil, err
			}

			return client.GetJob(ctx, upload.GetJobId())
		}
	}
	job, err := client.CancelJob(ctx, upload.GetJobId())
	if tcoder.ReasonOf(err) == tcoderv1.ErrorReason_ERROR_REASON_JOB_TERMINAL {
		return client.GetJob(ctx, upload.GetJobId()) // it ended before it could be canceled
	}

	return job, err
}

// finish tells how the job ended and fetches its outputs.
func (t *transcode) finish(ctx context.Context, client *tcoder.Client, job *tcoderv1.Job) error {
	if t.json {
		if err := t.PrintMessage(job); err != nil {
			return err
		}
	}
	if job.GetState() != tcoderv1.JobState_JOB_STATE_COMPLETED {
		return &cli.ShownError{Err: jobFailed(job)}
	}
	t.display.linef("completed in %s", formatDuration(job.GetTimeToComplete()))
	if t.output == "" {
		t.display.linef("get the outputs with: tcoder jobs download %s -o DIR", job.GetId())

		return nil
	}
	entries, err := download(ctx, client, t.display, job.GetId(), t.output)
	if err != nil {
		return &cli.ShownError{Err: err}
	}
	if !t.json {
		for _, entry := range entries {
			t.Printf("%s\n", entry)
		}
	}

	return nil
}

// jobFailed is the end of a job without success, as an error.
func jobFailed(job *tcoderv1.Job) error {
	return &cli.JobFailedError{
		Reason:  tcoder.ReasonName(job.GetFailure().GetReason()),
		Message: fmt.Sprintf("job %s: %s", job.GetId(), job.GetFailure().GetMessage()),
	}
}

// download fetches the outputs of a job and returns the files to open.
func download(ctx context.Context, client *tcoder.Client, d *display, jobID, dir string) ([]string, error) {
	startedAt := time.Now()
	var size int64
	tell := &transfer{display: d, label: "downloading"}
	got, err := client.Download(ctx, jobID, tcoder.DownloadOptions{Dir: dir, OnProgress: func(done, total int64) {
		size = total
		tell.update(done, total)
	}})
	d.clear()
	if err != nil {
		return nil, err
	}
	d.linef("downloaded %s, %s, in %s", count(len(got.Files), "file"), formatBytes(float64(size)), formatTook(time.Since(startedAt)))
	var entries []string
	for _, entry := range got.Entries {
		entries = append(entries, filepath.Clean(entry))
	}

	return entries, nil
}

// completePresets asks the server for the names of its presets.
func (t *transcode) completePresets(ctx context.Context) []string {
	client, err := t.connect()
	if err != nil {
		return nil
	}
	presets, err := client.Presets(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, preset := range presets {
		names = append(names, cobra.CompletionWithDesc(preset.GetName(), preset.GetDescription()))
	}

	return names
}

// completeFlag makes the shell complete a flag's value.
func completeFlag(cmd *cobra.Command, flag string, values func(context.Context) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag,
		func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			ctx, stop := context.WithTimeout(cmd.Context(), time.Second)
			defer stop()

			return values(ctx), cobra.ShellCompDirectiveNoFileComp
		})
	if err != nil {
		panic(err) // the flag doesn't exist
	}
}
