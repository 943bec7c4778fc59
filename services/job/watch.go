package job

import (
	"context"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// WatchJob streams a job: a snapshot, the events after the sequence that the
// client has seen, then every event and now and then progress as they come.
// It ends after the event that ended the job.
//
// It listens before it reads, so nothing falls in between. Of progress it tells
// what it hears, and reads the rest once a second; all else that it hears only
// says when to read. While a slow client takes a message, notices are merged
// into the newest, and events wait in the store.
func (s *Service) WatchJob(
	ctx context.Context, req *tcoderv1.WatchJobRequest, stream *connect.ServerStream[tcoderv1.WatchJobResponse],
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	notices, err := s.deps.Store.WatchJob(ctx, req.GetJobId())
	if err != nil {
		return err
	}
	j, err := s.owned(ctx, req.GetJobId())
	if err != nil {
		return err
	}
	w := &watch{service: s, stream: stream, job: j, readAt: time.Now(), seen: j.Sequence}
	if after := int64(min(req.GetAfterSequence(), uint64(j.Sequence))); after > 0 {
		w.seen = after
	}
	if err := w.send(nil); err != nil {
		return err
	}
	if done, err := w.catchUp(ctx); done || err != nil {
		return err
	}

	return w.follow(ctx, notices)
}

// readEvery is the least time between two readings of a job for its progress.
const readEvery = time.Second

// watch is one client's view of a job.
type watch struct {
	service *Service
	stream  *connect.ServerStream[tcoderv1.WatchJobResponse]
	job     pipeline.Job // as last read, with the progress that was heard since
	readAt  time.Time
	seen    int64 // the newest sequence that the client has
	waiting bool  // progress was heard that wasn't sent
}

// follow sends what changes until the job ends.
func (w *watch) follow(ctx context.Context, notices <-chan pipeline.JobNotice) error {
	refresh := time.NewTicker(w.service.cfg.WatchRefresh)
	defer refresh.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	paused := true // progress was sent just now
	for {
		changed := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-interceptor.Draining(ctx):
			return interceptor.ErrDraining()
		case <-pause.C:
			paused = false
		case <-refresh.C:
			if done, err := w.refresh(ctx); done || err != nil {
				return err
			}
		case n, ok := <-notices:
			if !ok {
				notices = nil // the refresh goes on
			} else {
				changed = w.hear(n)
			}
		}
		if changed {
			if done, err := w.catchUp(ctx); done || err != nil {
				return err
			}
		}
		if w.waiting && !paused {
			if done, err := w.progress(ctx); done || err != nil {
				return err
			}
			paused = true
			pause.Reset(w.interval())
		}
	}
}

// interval is how long progress rests that was told. A job of many tasks is a
// message of hundreds of kilobytes.
func (w *watch) interval() time.Duration {
	const many = 16

	if len(w.job.Tasks) > many {
		return max(readEvery, w.service.cfg.ProgressInterval)
	}

	return w.service.cfg.ProgressInterval
}

// hear takes a notice, and reports whether there may be events to read. An
// empty one says to read again. Progress may be older than what was read.
func (w *watch) hear(n pipeline.JobNotice) bool {
	if p := n.Progress; p != nil && n.Run == w.job.Run {
		now := &w.job.Progress
		now.Percent, now.Share, now.FPS = max(now.Percent, p.Percent), p.Share, p.FPS
		w.waiting = true
	}

	return n.Progress == nil || n.Sequence > w.seen
}

// progress tells the progress that was heard. What is told of tasks, renditions
// and files comes with it once a second: it takes Redis and this replica up to
// milliseconds to read.
func (w *watch) progress(ctx context.Context) (bool, error) {
	if time.Since(w.readAt) >= readEvery {
		return w.refresh(ctx)
	}
	w.waiting = false

	return false, w.send(nil)
}

// refresh tells the job as it is now, with the events that the client lacks.
// True if the job has ended and the client has all of it.
func (w *watch) refresh(ctx context.Context) (bool, error) {
	if err := w.read(ctx); err != nil {
		return false, err
	}
	if w.job.Sequence > w.seen {
		return w.catchUp(ctx)
	}

	return false, w.send(nil)
}

// catchUp sends the events that the client lacks, each with the job as it is
// now. True if the job has ended and the client has all of it.
func (w *watch) catchUp(ctx context.Context) (bool, error) {
	for {
		events, err := w.service.deps.Store.JobEvents(ctx, w.job.ID, w.seen)
		if err != nil {
			return false, err
		}
		if len(events) > 0 {
			if err := w.read(ctx); err != nil {
				return false, err
			}
		}
		for _, e := range events {
			if err := w.send(&e); err != nil {
				return false, err
			}
			w.seen = e.Sequence
		}
		if w.job.Sequence <= w.seen || len(events) == 0 {
			return w.job.State.Terminal() && w.job.Sequence <= w.seen, nil
		}
	}
}

// read reads the job.
func (w *watch) read(ctx context.Context) error {
	j, err := w.service.deps.Store.GetJob(ctx, w.job.ID)
	if err != nil {
		return err
	}
	w.job, w.readAt, w.waiting = j, time.Now(), false

	return nil
}

func (w *watch) send(e *pipeline.Event) error {
	message := &tcoderv1.WatchJobResponse{Job: w.service.message(w.job)}
	if e != nil {
		message.Event = mapper.EventToProto(*e)
	}

	return w.stream.Send(message)
}
