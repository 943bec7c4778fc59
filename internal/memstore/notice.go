package memstore

import (
	"context"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// jobWatcher keeps at most one notice for its reader: what isn't read yet is
// merged with what comes. The store's mutex guards it.
type jobWatcher struct{ out chan pipeline.JobNotice }

// WatchJob implements [pipeline.Notices].
func (s *Store) WatchJob(ctx context.Context, id string) (<-chan pipeline.JobNotice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	w := &jobWatcher{out: make(chan pipeline.JobNotice, 1)}

	if s.jobWatchers[id] == nil {
		s.jobWatchers[id] = map[*jobWatcher]struct{}{}
	}

	s.jobWatchers[id][w] = struct{}{}

	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()

		delete(s.jobWatchers[id], w)

		if len(s.jobWatchers[id]) == 0 {
			delete(s.jobWatchers, id)
		}

		close(w.out)
	})

	return w.out, nil
}

func (s *Store) notify(id string, n pipeline.JobNotice) {
	for w := range s.jobWatchers[id] {
		w.push(n)
	}
}

func (w *jobWatcher) push(n pipeline.JobNotice) {
	select {
	case unread := <-w.out:
		n.Sequence = max(n.Sequence, unread.Sequence)
		if n.Progress == nil {
			n.Run, n.Progress = unread.Run, unread.Progress
		}
	default:
	}

	w.out <- n // there is room: only push fills it
}

// wakeWatcher keeps each wake-up at most once for its reader. The store's
// mutex guards it.
type wakeWatcher struct{ out chan pipeline.Wake }

// Wakes implements [pipeline.Notices].
func (s *Store) Wakes(ctx context.Context) (<-chan pipeline.Wake, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	w := &wakeWatcher{out: make(chan pipeline.Wake, len(allWakes()))}
	s.wakeWatchers[w] = struct{}{}

	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()

		delete(s.wakeWatchers, w)
		close(w.out)
	})

	return w.out, nil
}

func allWakes() []pipeline.Wake {
	return []pipeline.Wake{pipeline.WakeReady, pipeline.WakeDue, pipeline.WakeWorker, pipeline.WakePool}
}

func (w *wakeWatcher) push(wakes map[pipeline.Wake]struct{}) {
	if len(wakes) == 0 {
		return
	}

	pending := map[pipeline.Wake]bool{}

	for unread := true; unread; {
		select {
		case wake := <-w.out:
			pending[wake] = true
		default:
			unread = false
		}
	}

	for _, wake := range allWakes() {
		if _, now := wakes[wake]; now || pending[wake] {
			w.out <- wake // there is room for each once
		}
	}
}
