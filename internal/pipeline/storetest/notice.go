package storetest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// patience bounds how long a notice may be under way.
const patience = 10 * time.Second

func noticeTests() map[string]func(*env) {
	return map[string]func(*env){
		"JobTellsOfEvents":       noticeEvents,
		"JobTellsOfProgress":     noticeProgress,
		"JobMergesForTheSlow":    noticeMerges,
		"JobIsToldOfItsDeletion": noticeDeletion,
		"ManyWatchers":           noticeManyWatchers,
		"EndsWithTheContext":     noticeEnds,
		"WakesForReadyTasks":     noticeWakeReady,
		"WakesForDeadlines":      noticeWakeDue,
		"WakesForWorkers":        noticeWakeWorker,
	}
}

func (e *env) watch(ctx context.Context, id string) <-chan pipeline.JobNotice {
	e.Helper()

	notices, err := e.store.WatchJob(ctx, id)
	require.NoError(e, err)

	return notices
}

// until takes notices until one fits.
func (e *env) until(notices <-chan pipeline.JobNotice, fits func(pipeline.JobNotice) bool) {
	e.Helper()

	timeout := time.After(patience)

	for {
		select {
		case n, open := <-notices:
			require.True(e, open)

			if fits(n) {
				return
			}
		case <-timeout:
			require.Fail(e, "no such notice")
		}
	}
}

func reaches(sequence int64) func(pipeline.JobNotice) bool {
	return func(n pipeline.JobNotice) bool { return n.Sequence >= sequence }
}

func noticeEvents(e *env) {
	w := e.attach("w1")
	j := e.job()
	other := e.job()
	notices := e.watch(e.ctx(), j.ID)

	leases := e.claim(w, 2)
	e.until(notices, reaches(4))
	require.Equal(e, other.ID, leases[1].Job.ID)
	e.fail(w, leases[0].Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt)
	e.until(notices, reaches(6))
	_, err := e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	e.until(notices, reaches(8))
}

func noticeProgress(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	notices := e.watch(e.ctx(), j.ID)

	for i, fraction := range []float64{0.25, 0.5, 0.75} {
		e.renew(w, pipeline.Renewal{
			Ref: l.Ref, Fraction: fraction, Progress: pipeline.Progress{Speed: 2, MediaTime: time.Duration(i) * time.Second},
		})
		e.until(notices, func(n pipeline.JobNotice) bool {
			return n.Progress != nil && n.Run == 1 && n.Progress.Percent == 100*fraction && n.Progress.Share == 100*fraction &&
				n.Progress.MediaTime == time.Duration(i)*time.Second && n.Progress.Speed == 2
		})
	}
}

// Whoever doesn't read gets the latest of what was missed, in one notice.
func noticeMerges(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	slow, fast := e.watch(e.ctx(), j.ID), e.watch(e.ctx(), j.ID)
	l := e.claimOne(w)

	for i := range 50 {
		e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: float64(i) / 50})
	}

	e.release(w, l.Ref)
	e.until(fast, reaches(8))
	// The fast one has it all, so the slow one has, too.
	n := <-slow
	require.Equal(e, int64(8), n.Sequence)
	require.NotNil(e, n.Progress)
	require.InDelta(e, 98, n.Progress.Percent, 0.01)
	require.Empty(e, slow)
}

func noticeDeletion(e *env) {
	w := e.attach("w1")
	j := e.completed(w)
	notices := e.watch(e.ctx(), j.ID)
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))
	e.until(notices, reaches(1))
}

func noticeManyWatchers(e *env) {
	j := e.job()

	var all []<-chan pipeline.JobNotice

	for range 50 {
		all = append(all, e.watch(e.ctx(), j.ID))
		all = append(all, e.watch(e.ctx(), j.ID))
		e.watch(e.ctx(), newID())
	}

	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)

	for _, notices := range all {
		e.until(notices, reaches(3))
	}
}

// A watch ends with its context, and another of the same job goes on.
func noticeEnds(e *env) {
	j := e.job()
	ctx, cancel := context.WithCancelCause(e.ctx())
	ends, stays := e.watch(ctx, j.ID), e.watch(e.ctx(), j.ID)
	wakes, err := e.store.Wakes(ctx)
	require.NoError(e, err)
	cancel(nil)

	closed := func() bool {
		select {
		case _, open := <-ends:
			return !open
		default:
			return false
		}
	}
	require.Eventually(e, closed, patience, time.Millisecond)
	require.Eventually(e, func() bool {
		select {
		case _, open := <-wakes:
			return !open
		default:
			return false
		}
	}, patience, time.Millisecond)

	_, err = e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	e.until(stays, reaches(3))

	again := e.watch(e.ctx(), j.ID)
	_, err = e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	e.until(again, reaches(5))
}

// wakes subscribes, and returns what waits for one wake-up, ignoring others.
func (e *env) wakes() func(pipeline.Wake) {
	e.Helper()

	wakes, err := e.store.Wakes(e.ctx())
	require.NoError(e, err)

	return func(want pipeline.Wake) {
		e.Helper()

		timeout := time.After(patience)

		for {
			select {
			case got := <-wakes:
				if got == want {
					return
				}
			case <-timeout:
				require.Fail(e, "no wake-up", want)
			}
		}
	}
}

func noticeWakeReady(e *env) {
	w := e.attach("w1")
	expect := e.wakes()

	j := e.job()
	expect(pipeline.WakeReady)

	l := e.claimOne(w)
	e.release(w, l.Ref)
	expect(pipeline.WakeReady)
	e.plan(w, e.claimOne(w), encode(1), encode(1, 0))
	expect(pipeline.WakeReady)
	e.finish(w, e.claimOne(w).Ref)
	expect(pipeline.WakeReady)
	e.fail(w, e.claimOne(w).Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
	e.pass(time.Second)
	expect(pipeline.WakeReady)
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	_, err = e.store.RetryJob(e.ctx(), j.ID, 1, probe(), 0)
	require.NoError(e, err)
	expect(pipeline.WakeReady)

	u := e.upload(time.Hour)
	_, err = e.store.CompleteUpload(e.ctx(), u.ID, 1, "etag", probe())
	require.NoError(e, err)
	expect(pipeline.WakeReady)
	e.claim(w, 2)
	e.pass(leaseFor + time.Second)
	expect(pipeline.WakeReady)
}

// The sweeper is woken for what is due before it would come by itself.
func noticeWakeDue(e *env) {
	w := e.attach("w1")
	expect := e.wakes()

	e.sweep()
	e.upload(10 * time.Second)
	expect(pipeline.WakeDue)

	e.sweep()
	e.job()

	l := e.claimOne(w)
	e.sweep()
	e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
	expect(pipeline.WakeDue)

	j := e.completed(w)
	e.sweep()
	require.NoError(e, e.store.DeleteJob(e.ctx(), j.ID))
	expect(pipeline.WakeDue)

	e.sweep()
	require.NoError(e, e.store.Resign(e.ctx(), replica))
	expect(pipeline.WakeDue)
}

func noticeWakeWorker(e *env) {
	w, other := e.attach("w1"), e.attach("w2")
	expect := e.wakes()

	j := e.job()
	e.claimOne(w)
	_, err := e.store.CancelJob(e.ctx(), j.ID)
	require.NoError(e, err)
	expect(pipeline.WakeWorker)

	j = e.planned(w, encode(1), encode(1))
	mine := e.claimOne(w)
	e.claimOne(other)
	e.fail(w, mine.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt)
	expect(pipeline.WakeWorker)
	require.Equal(e, pipeline.JobFailed, e.get(j.ID).State)

	_, err = e.store.DrainWorker(e.ctx(), w.id)
	require.NoError(e, err)
	expect(pipeline.WakeWorker)
}
