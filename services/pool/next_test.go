package pool

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestSurplusStaysIdle: among workers with as many free slots the one that was
// given tasks last gets the next one, so that those that aren't needed have
// nothing to do, and leave; but an emptier one comes first.
func TestSurplusStaysIdle(t *testing.T) {
	t.Parallel()
	svc := &Service{sessions: map[string]*session{}}
	attach := func(id string, slots int) *session {
		sess := &session{worker: pipeline.Worker{ID: id, Slots: slots}}
		svc.sessions[id] = sess
		return sess
	}
	d := newDispatcher(svc)
	attach("a", 1)
	used := attach("b", 1)
	attach("c", 1)
	d.noteWake()
	d.note(claimed{sess: used, given: true})
	d.note(claimed{sess: svc.sessions["c"], more: true}) // it asked, and got nothing
	for range 10 {
		next, _ := d.next()
		require.Equal(t, "b", next.worker.ID)
	}
	attach("d", 2)
	next, batch := d.next()
	require.Equal(t, "d", next.worker.ID)
	require.Equal(t, 1, batch)
}
