package redisstore

import (
	"context"
	"strings"
	"sync"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// What the channel of notices carries: ids of jobs, each with the sequence of its newest event; or lines of an
// id with run, percent, share of the work that is done now, and progress.
const (
	noticeSequence = "q"
	noticeProgress = "p"
)

// WatchJob implements [pipeline.Notices]. The subscription is live when it
// returns. After a reconnect it gives an empty notice: read again.
func (s *Store) WatchJob(ctx context.Context, id string) (<-chan pipeline.JobNotice, error) {
	w := &jobWatcher{out: make(chan pipeline.JobNotice, 1)}
	if err := s.hub.add(ctx, s.keys.jobChannel(id), w); err != nil {
		return nil, failed("watch job", err)
	}

	return w.out, nil
}

// Wakes implements [pipeline.Notices]. The subscription is live when it returns.
func (s *Store) Wakes(ctx context.Context) (<-chan pipeline.Wake, error) {
	w := &wakeWatcher{out: make(chan pipeline.Wake, len(allWakes()))}
	if err := s.hub.add(ctx, s.keys.wake, w); err != nil {
		return nil, failed("wakes", err)
	}

	return w.out, nil
}

// A watcher is told by the hub alone and never blocks it: what its reader
// hasn't taken yet is merged with what comes.
type watcher interface {
	notify(payload string)
	reconnected()
	close()
}

// jobWatcher keeps at most one notice for its reader.
type jobWatcher struct {
	mu     sync.Mutex
	closed bool
	out    chan pipeline.JobNotice
}

func (w *jobWatcher) notify(payload string) {
	kind, rest, _ := strings.Cut(payload, " ")

	switch kind {
	case noticeSequence:
		w.push(pipeline.JobNotice{Sequence: asInt(rest)})
	case noticeProgress:
		if strings.Count(rest, " ") != 6 { // another version's
			w.push(pipeline.JobNotice{})

			return
		}

		f := fields(rest, 4)
		p := decodeProgress(f[3])
		p.Percent, p.Share = asFloat(f[1]), asFloat(f[2])
		w.push(pipeline.JobNotice{Run: int(asInt(f[0])), Progress: &p})
	default: // whatever it was: read again
		w.push(pipeline.JobNotice{})
	}
}

func (w *jobWatcher) reconnected() { w.push(pipeline.JobNotice{}) }

func (w *jobWatcher) push(n pipeline.JobNotice) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if w.closed {
		return
	}

	select {
	case old := <-w.out:
		n = merge(old, n)
	default:
	}

	w.out <- n // there is room: only push fills it
}

// merge is one notice for two. An empty one means "read again", so what is
// merged with it must not look like progress alone.
func merge(old, latest pipeline.JobNotice) pipeline.JobNotice {
	empty := pipeline.JobNotice{}
	again := old == empty || latest == empty
	latest.Sequence = max(latest.Sequence, old.Sequence)

	switch {
	case again:
		latest.Run, latest.Progress = 0, nil
	case latest.Progress == nil:
		latest.Run, latest.Progress = old.Run, old.Progress
	}

	return latest
}

func (w *jobWatcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()

	if !w.closed {
		w.closed = true
		close(w.out)
	}
}

// wakeWatcher keeps each wake-up at most once for its reader.
type wakeWatcher struct {
	mu     sync.Mutex
	closed bool
	out    chan pipeline.Wake
}

func allWakes() []pipeline.Wake {
	return []pipeline.Wake{pipeline.WakeReady, pipeline.WakeDue, pipeline.WakeWorker, pipeline.WakePool}
}

func (w *wakeWatcher) notify(payload string) {
	for _, wake := range allWakes() {
		if string(wake) == payload {
			w.push(wake)
		}
	}
}

func (w *wakeWatcher) reconnected() { w.push(allWakes()...) }

func (w *wakeWatcher) push(wakes ...pipeline.Wake) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if w.closed {
		return
	}

	pending := make(map[pipeline.Wake]bool, cap(w.out))

	for more := true; more; {
		select {
		case old := <-w.out:
			pending[old] = true
		default:
			more = false
		}
	}

	for _, wake := range wakes {
		pending[wake] = true
	}

	for wake := range pending {
		w.out <- wake // there is room for each once
	}
}

func (w *wakeWatcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()

	if !w.closed {
		w.closed = true
		close(w.out)
	}
}
