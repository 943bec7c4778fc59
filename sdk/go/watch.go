package tcoder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Update is one change of a watched job.
type Update struct {
	// Job is the job as it is now, with its tasks. On progress alone what it
	// tells of tasks and renditions may be a second old.
	Job *tcoderv1.Job
	// Event is what happened. Nil on a snapshot and on progress alone.
	Event *tcoderv1.JobEvent
}

// WatchOption changes what a watch tells.
type WatchOption func(*watch)

// AfterSequence makes a watch begin with the events after the given sequence,
// for callers that have seen the ones before. Without it a watch begins with
// the job as it is.
func AfterSequence(sequence uint64) WatchOption {
	return func(w *watch) { w.after = sequence }
}

// Watch yields a snapshot of the job, then every change of it, and ends after
// the job's final state. When the connection is lost it is opened again and
// goes on after the last event: each event comes once and in order, whatever
// happens in between. After a reconnect there is another snapshot.
//
// The first error ends it: the job is unknown, ctx ended, or the server was
// away for longer than the client's patience.
func (c *Client) Watch(ctx context.Context, jobID string, opts ...WatchOption) iter.Seq2[Update, error] {
	return func(yield func(Update, error) bool) {
		w := &watch{client: c, jobID: jobID, retry: c.newRetrier()}
		for _, opt := range opts {
			opt(w)
		}
		for {
			err := w.follow(ctx, yield)
			switch {
			case errors.Is(err, errStopped):
				return
			case err == nil && w.ended:
				return
			case ctx.Err() != nil:
				yield(Update{}, contextError(ctx))

				return
			}
			refusal := watchError(err)
			if !again(err) || !w.retry.wait(ctx, refusal.RetryAfter) {
				if ctx.Err() != nil {
					yield(Update{}, contextError(ctx))
				} else {
					yield(Update{}, refusal)
				}

				return
			}
		}
	}
}

// Wait follows a job to its end and returns it. A job that failed or was
// canceled is no error: its State and Failure tell.
func (c *Client) Wait(ctx context.Context, jobID string) (*tcoderv1.Job, error) {
	var last *tcoderv1.Job
	for update, err := range c.Watch(ctx, jobID) {
		if err != nil {
			return nil, err
		}
		last = update.Job
	}

	return last, nil
}

// IsFinal reports whether a job has ended.
func IsFinal(s tcoderv1.JobState) bool {
	switch s {
	case tcoderv1.JobState_JOB_STATE_COMPLETED, tcoderv1.JobState_JOB_STATE_FAILED,
		tcoderv1.JobState_JOB_STATE_CANCELED:
		return true
	default:
		return false
	}
}

var (
	errStopped = errors.New("the caller has seen enough")
	errIdle    = errors.New("nothing heard from the server")
	errCut     = errors.New("the server closed the stream before the job's end")
)

// watch is one caller's watch, over any number of streams.
type watch struct {
	client *Client
	jobID  string
	retry  *retrier
	after  uint64 // sequence of the newest event that was told
	ended  bool   // the newest job that was told has ended
}

// follow reads one stream. It returns nil if the server ended it, and
// errStopped if the caller did.
func (w *watch) follow(ctx context.Context, yield func(Update, error) bool) error {
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(w.client.watchIdle, func() { cancel(errIdle) })
	defer idle.Stop()
	stream, err := w.client.jobs.WatchJob(streamCtx,
		&tcoderv1.WatchJobRequest{JobId: w.jobID, AfterSequence: w.after})
	if err != nil {
		return idleOr(streamCtx, err)
	}
	defer stream.Close() //nolint:errcheck // its error is that of Err
	for stream.Receive() {
		idle.Stop() // the caller may take its time
		w.client.reached.Store(true)
		w.retry.reset(w.client.retry.Patience)
		if update, ok := w.take(stream.Msg()); ok && !yield(update, nil) {
			return errStopped
		}
		idle.Reset(w.client.watchIdle)
	}
	if err := stream.Err(); err != nil {
		return idleOr(streamCtx, err)
	}
	if !w.ended {
		return errCut
	}

	return nil
}

// take makes an update of a message; false if it was told before.
func (w *watch) take(msg *tcoderv1.WatchJobResponse) (Update, bool) {
	event := msg.GetEvent()
	switch {
	case event != nil && event.GetSequence() <= w.after:
		return Update{}, false
	case event != nil:
		w.after = event.GetSequence()
	case w.after == 0:
		// Events from here on are asked for; a later snapshot doesn't count,
		// because the events before it are still to come.
		w.after = msg.GetJob().GetSequence()
	}
	w.ended = IsFinal(msg.GetJob().GetState())

	return Update{Job: msg.GetJob(), Event: event}, true
}

func idleOr(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errIdle) {
		return errIdle
	}

	return err
}

// again reports whether a watch that ended like this is worth opening again. A
// cut connection has many codes, so the question is which ones are answers.
func again(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument:
		return !connect.IsWireError(err) // a message cut in half has this code too
	case connect.CodeNotFound, connect.CodePermissionDenied, connect.CodeUnauthenticated,
		connect.CodeFailedPrecondition, connect.CodeUnimplemented:
		return false
	default:
		return true
	}
}

func watchError(err error) *Error {
	if errors.Is(err, errIdle) || errors.Is(err, errCut) {
		return &Error{
			Code: connect.CodeUnavailable, Message: err.Error(),
			cause: fmt.Errorf("%w: %w", ErrUnreachable, err),
		}
	}

	return newError(err)
}
