package storetest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func progressTests() map[string]func(*env) {
	return map[string]func(*env){
		"IsWeighted":            progressIsWeighted,
		"NeverFallsWithinARun":  progressNeverFalls,
		"IsStoredSeldom":        progressIsStoredSeldom,
		"IsStoredForWatchers":   progressIsStoredForWatchers,
		"IsStoredAfterAnAttach": progressIsStoredAfterAttach,
		"EndsAtHundred":         progressEndsAtHundred,
		"IgnoresNonsense":       progressIgnoresNonsense,
		"KeepsTheLatest":        progressKeepsTheLatest,
		"RisesWithoutAWord":     progressRisesWithoutAWord,
		"TellsWhatIsDoneNow":    progressTellsWhatIsDone,
	}
}

func (e *env) percent(id string) float64 { return e.get(id).Progress.Percent }

// tell renews with a fraction, later than any bound on storing it.
func (e *env) tell(w worker, l pipeline.Lease, fraction float64) {
	e.Helper()
	e.advance(e.T, 3*time.Second)
	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: fraction}))
}

// The percent of a job is that of its tasks by weight; probes weigh nothing.
func progressIsWeighted(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(3), encode(1))
	require.Zero(e, e.percent(j.ID))

	leases := e.claim(w, 2)
	e.tell(w, leases[0], 0.5)
	require.InDelta(e, 37.5, e.percent(j.ID), 0.01)
	e.tell(w, leases[1], 0.25)
	require.InDelta(e, 43.75, e.percent(j.ID), 0.01)

	e.finish(w, leases[1].Ref)
	e.tell(w, leases[0], 0.6)
	require.InDelta(e, 70, e.percent(j.ID), 0.01)
}

// A lost attempt costs its progress, which the percent doesn't show.
func progressNeverFalls(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(1))
	leases := e.claim(w, 2)
	e.tell(w, leases[0], 0.8)
	require.InDelta(e, 40, e.percent(j.ID), 0.01)
	e.tell(w, leases[0], 0.7)
	require.InDelta(e, 40, e.percent(j.ID), 0.01)
	e.release(w, leases[0].Ref)
	require.InDelta(e, 40, e.percent(j.ID), 0.01)

	next := e.claimOne(w)
	e.tell(w, next, 0.1)
	require.InDelta(e, 40, e.percent(j.ID), 0.01)
	e.tell(w, leases[1], 0.9)
	require.InDelta(e, 50, e.percent(j.ID), 0.01, "0.1 and 0.9 of two")
}

// With nobody watching, at most one write in a second.
func progressIsStoredSeldom(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	e.tell(w, l, 0.1)
	e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: 0.2})
	require.InDelta(e, 10, e.percent(j.ID), 0.01)
	e.tell(w, l, 0.3)
	require.InDelta(e, 30, e.percent(j.ID), 0.01)
}

// A worker that attaches for every word, as behind a proxy that takes each to
// another replica, is heard.
func progressIsStoredAfterAttach(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)

	for _, fraction := range []float64{0.1, 0.2} {
		e.advance(e.T, 3*time.Second)

		_, kept, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: w.id, Held: []pipeline.LeaseRef{l.Ref}}, leaseFor)
		require.NoError(e, err)
		require.Len(e, kept, 1)
		require.Empty(e, e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: fraction}))
		require.InDelta(e, 100*fraction, e.percent(j.ID), 0.01)
	}
}

// Somebody who watches reads what they were told.
func progressIsStoredForWatchers(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	e.tell(w, l, 0.1)

	ctx, cancel := context.WithCancelCause(e.ctx())
	defer cancel(nil)

	_, err := e.store.WatchJob(ctx, j.ID)
	require.NoError(e, err)
	e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: 0.2})
	require.InDelta(e, 20, e.percent(j.ID), 0.01)
}

// 100 is for a job that is published.
func progressEndsAtHundred(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	e.tell(w, l, 1)
	require.InDelta(e, 99.9, e.percent(j.ID), 0)
	e.finish(w, l.Ref)
	require.InDelta(e, 99.9, e.percent(j.ID), 0)
	require.True(e, e.complete(j.ID, 1))
	require.InDelta(e, 100, e.percent(j.ID), 0)
}

func progressIgnoresNonsense(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	nan := 0.0
	nan /= nan

	for _, fraction := range []float64{nan, -1} {
		e.tell(w, l, fraction)
		require.Zero(e, e.percent(j.ID))
	}

	e.tell(w, l, 7)
	require.InDelta(e, 99.9, e.percent(j.ID), 0)
	e.advance(e.T, 3*time.Second)
	require.Empty(e, e.renew(w, pipeline.Renewal{Ref: l.Ref, Progress: pipeline.Progress{Speed: nan, FPS: nan}}))
	require.Zero(e, e.get(j.ID).Progress.Speed)
}

func progressKeepsTheLatest(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	e.advance(e.T, 3*time.Second)
	e.renew(w, pipeline.Renewal{
		Ref: l.Ref, Fraction: 0.5,
		Progress: pipeline.Progress{Percent: 3, MediaTime: 30 * time.Second, Speed: 2.5, FPS: 75, ETA: 12 * time.Second},
	})
	require.Equal(e, pipeline.Progress{
		Percent: 50, MediaTime: 30 * time.Second, Speed: 2.5, FPS: 75, ETA: 12 * time.Second, Share: 50,
	}, e.get(j.ID).Progress)
}

// A task that is done sooner than it tells of itself counts at once.
func progressRisesWithoutAWord(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(1), encode(3))
	leases := e.claim(w, 2)
	e.finish(w, leases[0].Ref)
	require.InDelta(e, 25, e.percent(j.ID), 0.01)
	e.finish(w, leases[1].Ref)
	require.Less(e, e.percent(j.ID), 100.0)
}

// Beside the percent a reader gets the share that is done now, and what each
// attempt that runs has told: both fall where work is lost.
func progressTellsWhatIsDone(e *env) {
	w := e.attach("w1")
	j := e.planned(w, encode(3), encode(1), encode(4))
	leases := e.claim(w, 3)

	tells := func(share float64, fractions ...float64) {
		e.Helper()

		got := e.get(j.ID)
		require.InDelta(e, share, got.Progress.Share, 0.01)

		list, err := e.store.ListJobs(e.ctx(), pipeline.JobFilter{Project: j.Project, Limit: 1})
		require.NoError(e, err)
		require.InDelta(e, share, list[0].Progress.Share, 0.01)

		for i, fraction := range fractions {
			require.InDelta(e, fraction, got.Tasks[i+1].Fraction, 0.001)
		}
	}

	tells(0, 0, 0, 0)
	e.tell(w, leases[0], 0.8)
	e.tell(w, leases[1], 0.5)
	tells(36.25, 0.8, 0.5, 0)
	e.tell(w, leases[0], 0.4)
	tells(21.25, 0.4, 0.5, 0)
	e.finish(w, leases[1].Ref)
	tells(27.5, 0.4, 0, 0)
	require.InDelta(e, 36.25, e.percent(j.ID), 0.01)
	e.release(w, leases[0].Ref)
	tells(12.5, 0, 0, 0)
	e.finish(w, e.claimOne(w).Ref)
	tells(50, 0, 0, 0)
}
