package sweep

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const removalsAtOnce = 16

// start begins a duty, unless it has begun already: a stream's that comes again
// while it is at work is done once more, for what it may not have seen. It waits
// for its turn where too many are at work.
func (s *Sweeper) start(ctx context.Context, d pipeline.Duty) {
	key := dutyKey{d.Kind, d.ID}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, begun := s.begun[key]; begun {
		s.begun[key] = d.Kind == pipeline.DutyStream
		return
	}
	s.begun[key] = false
	turns := s.turns
	switch d.Kind {
	case pipeline.DutyStream:
		turns = s.streams // players wait for it
	case pipeline.DutyPublish, pipeline.DutyExpireUpload:
		turns = s.ends // clients wait for it, nobody for what is removed
	case pipeline.DutyClean, pipeline.DutyPurge:
	}
	s.duties.Go(func() {
		for more := true; more; more = s.again(key) {
			select {
			case turns <- struct{}{}:
				s.atWork(key)
				s.do(ctx, d)
				<-turns
			case <-ctx.Done():
			}
		}
	})
}

// atWork forgets that a duty came again while it waited for its turn.
func (s *Sweeper) atWork(key dutyKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun[key] = false
}

// again reports whether a duty is to be done once more; if not, it is over.
func (s *Sweeper) again(key dutyKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := s.begun[key]
	if !more {
		delete(s.begun, key)
	}
	return more
}

// do does a duty and ends it. A failed one is left to come again.
func (s *Sweeper) do(ctx context.Context, d pipeline.Duty) {
	timeout := dutyTimeout
	if d.Kind == pipeline.DutyStream {
		timeout = streamTimeout
	}
	stopping := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	started := time.Now()
	log := s.deps.Log.With("duty", string(d.Kind), "id", d.ID)
	if err := pipeline.Contain(func() error { return s.perform(ctx, d) }); err != nil {
		if stopping.Err() == nil {
			log.WarnContext(ctx, "duty failed, it comes again", "error", err)
		}
		return
	}
	if d.Kind == pipeline.DutyStream {
		return // publishing it ended it
	}
	if err := s.deps.Store.EndDuty(ctx, d); err != nil {
		log.WarnContext(ctx, "duty is done but can't be ended, it comes again", "error", err)
		return
	}
	log.DebugContext(ctx, "duty done", "took", time.Since(started))
}

func (s *Sweeper) perform(ctx context.Context, d pipeline.Duty) error {
	if d.Unreadable != nil {
		return d.Unreadable
	}
	switch d.Kind {
	case pipeline.DutyExpireUpload:
		return s.deps.ExpireUpload(ctx, d.ID)
	case pipeline.DutyPublish:
		return s.deps.Publish(ctx, d.ID)
	case pipeline.DutyStream:
		return s.deps.Stream(ctx, d.ID)
	case pipeline.DutyClean:
		return s.clean(ctx, d)
	case pipeline.DutyPurge:
		return s.purge(ctx, d)
	default:
		return fmt.Errorf("unknown duty %s", d.Kind)
	}
}

// clean removes the objects of an ended job that no output names: what failed
// attempts left, and everything of a job without outputs.
func (s *Sweeper) clean(ctx context.Context, d pipeline.Duty) error {
	job, found, err := s.ended(ctx, d.ID)
	if err != nil || !found {
		return err
	}
	named := map[string]bool{}
	for _, output := range job.Outputs {
		for _, object := range output.Objects {
			named[object.Key] = true
		}
	}
	prefix := media.JobPrefix(job.Project, job.ID)
	var removals []func(context.Context) error
	err = s.deps.Out.List(ctx, prefix, func(o objectstore.ObjectInfo) error {
		if !named[o.Key] {
			removals = append(removals, func(ctx context.Context) error { return s.deps.Out.Delete(ctx, o.Key) })
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = s.deps.Out.ListMultipart(ctx, prefix, func(key, uploadID string) error {
		removals = append(removals, func(ctx context.Context) error { return s.deps.Out.AbortMultipart(ctx, key, uploadID) })
		return nil
	})
	if err != nil {
		return err
	}
	// A retry since the first look may have begun to write: what was listed
	// is surplus only if the same run is still the last.
	again, found, err := s.ended(ctx, d.ID)
	if err != nil || !found || again.Run != job.Run {
		return err
	}
	removing, ctx := errgroup.WithContext(ctx)
	removing.SetLimit(removalsAtOnce)
	for _, remove := range removals {
		removing.Go(func() error { return remove(ctx) })
	}
	return removing.Wait()
}

// ended returns a job; false if it isn't there or lives again.
func (s *Sweeper) ended(ctx context.Context, id string) (pipeline.Job, bool, error) {
	job, err := s.deps.Store.GetJob(ctx, id)
	if err != nil {
		if pipeline.ReasonOf(err) == pipeline.ReasonJobNotFound {
			return pipeline.Job{}, false, nil
		}
		return pipeline.Job{}, false, err
	}
	return job, job.State.Terminal(), nil
}

// purge removes all objects of a deleted job, and its source if that came by
// an upload that the store says no other job has: it names none otherwise. An
// object that was there before the job isn't ours to remove.
func (s *Sweeper) purge(ctx context.Context, d pipeline.Duty) error {
	prefix := media.JobPrefix(d.Project, d.ID)
	err := s.deps.Out.ListMultipart(ctx, prefix, func(key, uploadID string) error {
		return s.deps.Out.AbortMultipart(ctx, key, uploadID)
	})
	if err != nil {
		return err
	}
	if err := s.deps.Out.DeletePrefix(ctx, prefix); err != nil {
		return err
	}
	if d.Source.UploadID == "" || d.Source.ObjectKey != media.InputKey(d.Project, d.Source.UploadID) {
		return nil
	}
	return s.deps.In.Delete(ctx, d.Source.ObjectKey)
}
