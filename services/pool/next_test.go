package pool

import (
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
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

// TestDoubtedComesLast: a worker whose last attempt failed, and not by its
// input, is asked when nobody else has a free slot, however many it has, until
// an attempt of it comes off or its time is over.
func TestDoubtedComesLast(t *testing.T) {
	t.Parallel()
	svc := &Service{sessions: map[string]*session{}}
	attach := func(id string, slots int) *session {
		sess := &session{worker: pipeline.Worker{ID: id, Slots: slots}, leases: map[pipeline.LeaseRef]*lease{}}
		svc.sessions[id] = sess
		return sess
	}
	d := newDispatcher(svc)
	d.noteWake()
	hole, other := attach("hole", 4), attach("other", 1)
	requireNext := func(want *session, batch int) {
		t.Helper()
		got, n := d.next()
		require.Equal(t, want, got)
		require.Equal(t, batch, n)
	}
	const (
		accepted = tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED
		stale    = tcoderv1.ReportVerdict_REPORT_VERDICT_STALE
		rejected = tcoderv1.ReportVerdict_REPORT_VERDICT_REJECTED
	)
	fault := func(class tcoderv1.FaultClass) *tcoderv1.TaskReport {
		return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Fault{Fault: &tcoderv1.Fault{Class: class}}}
	}
	released := &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Released{Released: &tcoderv1.Released{}}}
	done := &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Encode{Encode: &tcoderv1.EncodeResult{}}}
	machine := fault(tcoderv1.FaultClass_FAULT_CLASS_MACHINE)

	requireNext(hole, 3)
	hole.judge(fault(tcoderv1.FaultClass_FAULT_CLASS_INPUT), accepted)
	hole.judge(machine, stale)
	hole.judge(released, accepted)
	requireNext(hole, 3) // none of these says anything of it

	hole.judge(machine, accepted)
	requireNext(other, 1)
	hole.judge(released, accepted)
	requireNext(other, 1)
	other.setClaiming(true)
	requireNext(nil, 0)
	other.setClaiming(false)
	other.leases[pipeline.LeaseRef{}] = nil
	requireNext(hole, 4) // nobody else can take it
	delete(other.leases, pipeline.LeaseRef{})
	requireNext(other, 1)
	hole.judge(done, accepted)
	requireNext(hole, 3)

	hole.judge(done, rejected)
	requireNext(other, 1)
	require.False(t, hole.doubted(hole.doubtUntil))

	hole.judge(fault(tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN), accepted)
	other.judge(machine, accepted)
	requireNext(hole, 3) // all are doubted alike
}
