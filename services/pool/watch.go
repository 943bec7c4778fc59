package pool

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// watchers are those who watch the pool. The store is read for all of them at
// once, and not at all while there are none.
type watchers struct {
	looks chan struct{} // asks for a look

	mu      sync.Mutex
	members map[chan *tcoderv1.WatchPoolResponse]struct{}
	shown   *tcoderv1.WatchPoolResponse // what the members were given last
}

func newWatchers() *watchers {
	return &watchers{looks: make(chan struct{}, 1), members: map[chan *tcoderv1.WatchPoolResponse]struct{}{}}
}

func (w *watchers) look() { signal(w.looks) }

// join adds a member, which holds the newest message that it hasn't taken.
func (w *watchers) join() (member chan *tcoderv1.WatchPoolResponse, leave func()) {
	member = make(chan *tcoderv1.WatchPoolResponse, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[member] = struct{}{}
	w.look()
	return member, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.members, member)
	}
}

func (w *watchers) any() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.members) > 0
}

// show gives all members a message, unless they have one like it.
func (w *watchers) show(m *tcoderv1.WatchPoolResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shown != nil && proto.Equal(still(m), still(w.shown)) {
		return
	}
	w.shown = m
	for member := range w.members {
		select {
		case <-member: // it is outdated
		default:
		}
		member <- m
	}
}

// still is a message without what changes by the time alone.
func still(m *tcoderv1.WatchPoolResponse) *tcoderv1.WatchPoolResponse {
	m = proto.CloneOf(m)
	m.Pool.OldestReady = nil
	for _, w := range m.GetWorkers() {
		w.LastSeenAt = nil
	}
	return m
}

// WatchPool streams the pool until the client leaves.
func (s *Service) WatchPool(
	ctx context.Context, _ *tcoderv1.WatchPoolRequest, stream *connect.ServerStream[tcoderv1.WatchPoolResponse],
) error {
	news, leave := s.watchers.join()
	defer leave()
	last, err := s.watchMessage(ctx)
	if err != nil {
		return err
	}
	refresh := time.NewTicker(s.cfg.WatchRefresh)
	defer refresh.Stop()
	for {
		if err := stream.Send(last); err != nil {
			return err
		}
		refresh.Reset(s.cfg.WatchRefresh)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-interceptor.Draining(ctx):
			return interceptor.ErrDraining()
		case <-refresh.C: // a proxy cuts what is silent
			if last, err = s.watchMessage(ctx); err != nil {
				return err
			}
		case last = <-news:
		}
	}
}

func (s *Service) watchMessage(ctx context.Context) (*tcoderv1.WatchPoolResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	view, err := s.deps.Store.ReadPool(ctx)
	if err != nil {
		return nil, err
	}
	m := &tcoderv1.WatchPoolResponse{Pool: s.poolMessage(view)}
	for _, one := range view.Machines {
		m.Machines = append(m.Machines, mapper.MachineToProto(one))
	}
	for _, one := range view.Workers {
		m.Workers = append(m.Workers, mapper.WorkerToProto(one))
	}
	return m, nil
}

// feedWatchers reads the pool while somebody watches. Most of what changes
// tells nobody, so it is read at the pace at which it is told.
func (s *Service) feedWatchers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.watchers.looks:
		}
		for s.watchers.any() && ctx.Err() == nil {
			m, err := s.watchMessage(ctx)
			switch {
			case err == nil:
				s.watchers.show(m)
			case pipeline.ReasonOf(err) != pipeline.ReasonStateUnavailable:
				s.deps.Log.WarnContext(ctx, "pool can't be shown", "error", err)
			default: // they see that nothing changes
			}
			sleep(ctx, s.cfg.WatchInterval)
		}
	}
}
