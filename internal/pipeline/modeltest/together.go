package modeltest

import (
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// together makes several calls of a verb as one, as callers at the same moment
// do. What comes of them is what would come of one after the other.
func (w *world) together(t *rapid.T) {
	limit := runningLimit(t) // of one call there is one
	makers := []func(*rapid.T) call{
		w.creation, func(t *rapid.T) call { return w.claimOf(t, limit) }, w.renewal, w.result, w.completion, w.commit,
	}
	makeCall := makers[rapid.IntRange(0, len(makers)-1).Draw(t, "verb")]
	calls := make([]call, rapid.IntRange(2, 4).Draw(t, "calls"))

	for i := range calls {
		calls[i] = makeCall(t)
	}

	replica := rapid.IntRange(0, len(w.real.Replicas)-1).Draw(t, "replica")
	want, got := make([]outcome, len(calls)), make([]outcome, len(calls))
	begin := make([]func(), len(calls))

	for i, c := range calls {
		want[i].answer, _, want[i].err = c.run(w.Context(), w.model)
		begin[i] = func() { got[i].answer, _, got[i].err = c.run(w.Context(), w.real.Replicas[replica]) }
	}

	w.real.Together(replica, calls[0].verb, begin)

	w.verb = calls[0].verb
	w.calls[w.verb+" together"] += len(calls)

	for i := range calls {
		require.Equal(w, refusal(want[i].err), refusal(got[i].err), "%s: the model says %v, the store %v", w.verb, want[i].err, got[i].err)

		if diff := cmp.Diff(lastMore(want, i), got[i].answer, equal()); got[i].err == nil && diff != "" {
			w.Fatalf("%s, %d of %d: model (-) and store (+) answer:\n%s", w.verb, i+1, len(calls), diff)
		}

		w.learn(got[i].answer, got[i].err)
	}

	w.history = append(w.history, calls...)
	w.check()
}

// outcome is what a store says.
type outcome struct {
	answer any
	err    error
}

// lastMore is an answer of the model to one of several calls. Whether more
// tasks are ready is told as it is after all of them.
func lastMore(all []outcome, i int) any {
	answer, isClaim := all[i].answer.(claimed)
	last, ok := all[len(all)-1].answer.(claimed)

	if !isClaim || !ok {
		return all[i].answer
	}

	answer.More = last.More

	return answer
}
