package pool

import (
	"context"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// checkPause is the least time between two looks at the workers in the store:
// many wake-ups at once make one look. Where many workers make a look long, so
// that each of them that attaches asks for one, looking takes this share of the
// time at most.
const (
	checkPause = 50 * time.Millisecond
	checkShare = 10
	// unlistedFor is how long a worker may be missing in the store before its
	// session is over. After an outage none was seen lately, until the sweepers
	// of their replicas say again that they are there.
	unlistedFor = 30 * time.Second
)

// supervise compares the sessions with the store whenever something was done
// to a worker on any replica.
func (s *Service) supervise(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.checks:
			began := time.Now()
			s.check(ctx)
			sleep(ctx, max(checkPause, (checkShare-1)*time.Since(began)))
		}
	}
}

// check stops attempts whose leases were taken away (their job was canceled,
// say), tells workers to drain that were marked, and cuts sessions that are
// no longer the worker's.
func (s *Service) check(ctx context.Context) {
	// What is remembered now was in the store before the store is read.
	sessions := s.current()
	if len(sessions) == 0 {
		return
	}
	held := make([][]pipeline.LeaseRef, len(sessions))
	for i, sess := range sessions {
		held[i] = sess.held()
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	workers, err := s.deps.Store.ListWorkers(callCtx)
	if err != nil {
		if ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "workers can't be checked, trying again", "error", err)
			sleep(ctx, maxRetry)
			signal(s.checks)
		}
		return
	}
	byID := make(map[string]pipeline.Worker, len(workers))
	for _, w := range workers {
		byID[w.ID] = w
	}
	for i, sess := range sessions {
		w, known := byID[sess.worker.ID]
		missing := sess.missing(!known, time.Now())
		switch {
		case known && w.Session != sess.number, missing >= unlistedFor:
			sess.end(errForgotten)
			continue
		case !known:
			time.AfterFunc(unlistedFor-missing, func() { signal(s.checks) })
			continue
		}
		if w.Draining {
			sess.drain("The worker was told to drain.")
		}
		for _, ref := range held[i] {
			if slices.Contains(w.Held, ref) || !sess.drop(ref) {
				continue
			}
			sess.log.InfoContext(ctx, "attempt is to be stopped", "task_id", ref.TaskID, "attempt", ref.Attempt)
			s.stop(sess, ref, pipeline.Failure{Reason: pipeline.ReasonLeaseLost, Message: "The task was taken away, or its job has ended."})
		}
	}
	s.dispatch.wake()
}
