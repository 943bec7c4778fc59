// Package modeltest compares a [pipeline.Store] with a model, step by step.
//
// The model is package memstore: the plain statement of what the port
// promises. A case is a random interleaving of every verb by several clients,
// workers and replicas of the control plane, with time that passes between
// them, calls that are repeated because their answer was lost, calls that come
// again long after, and tokens, sessions and runs that are stale. Both stores
// get the same calls at the same moment, since their clocks are stopped. After
// every step their answers agree, all that can be read of them agrees, and the
// invariants of the design hold (see audit.go). At the end of a case whatever
// is alive is taken to its end, and then nothing may be left over.
package modeltest

import (
	"context"
	"flag"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Harness is a store under test: empty, used by one case alone.
type Harness struct {
	// Replicas are clients of the one store, as the replicas of a control plane are.
	Replicas []pipeline.Store
	// StopClock sets the store's clock to a moment, where it stays.
	StopClock func(t *rapid.T, at time.Time)
}

// fewCases are enough to notice what is plainly wrong, in few seconds.
const fewCases = "20"

// Run tests a store in a few cases, or in as many and of as many steps as
// rapid's flags say (-rapid.checks, -rapid.steps: make test-model); a failure
// tells the seed. Open is called once for each case.
func Run(t *testing.T, open func(t *rapid.T) Harness) {
	t.Helper()

	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "rapid.checks" })

	if !told {
		require.NoError(t, flag.Set("rapid.checks", fewCases))
	}

	steps, cases := map[string]int{}, 0

	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, open(t))
		w.Repeat(w.actions())
		w.converge()

		cases++

		for name, n := range w.calls {
			steps[name] += n
		}
	})

	total := 0
	for _, n := range steps {
		total += n
	}

	t.Logf("%d cases, %d calls: %v", cases, total, steps)
}

// world is what a case works with: both stores, and what the clients, workers
// and replicas remember, however old.
type world struct {
	*rapid.T

	model *memstore.Store
	real  Harness
	now   time.Time

	made     int // ids
	jobs     []string
	uploads  []string
	leases   []given
	sessions []session
	requests []string
	duties   []pipeline.Duty
	history  []call
	calls    map[string]int // by verb
	calm     bool           // no answer is lost any more
	last     *snapshot
	verb     string          // that was called last
	gone     map[string]bool // jobs that were deleted
}

// given is a lease as the worker that it was given to remembers it.
type given struct {
	worker string
	lease  pipeline.Lease
}

// session is one attach of a worker.
type session struct {
	worker string
	number int64
}

func newWorld(t *rapid.T, h Harness) *world {
	w := &world{
		T: t, real: h, calls: map[string]int{}, gone: map[string]bool{},
		now: time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC),
	}
	w.model = memstore.New(memstore.Config{Clock: func() time.Time { return w.now }})
	h.StopClock(t, w.now)
	w.last = w.read(w.model)
	w.check()
	w.attachAs(pipeline.Worker{ID: "w1"})
	w.attachAs(pipeline.Worker{ID: "w2", MachineID: "m1"})

	return w
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.real.StopClock(w.T, w.now)
}

// call is one call of a verb, with all that it says.
type call struct {
	verb  string
	makes string // id of the job that it makes, if it does
	// run calls a store. What must be the same when a call comes again at once is the essence of its answer; nil if nothing must.
	run func(ctx context.Context, s pipeline.Store) (answer, essence any, err error)
}

// equal are the rules by which answers agree: Lua keeps 14 digits of a number.
func equal() cmp.Options { return cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateApprox(0, 1e-6)} }

// do makes a call of both stores and returns the answer. In some cases the
// answer is lost on its way, and the caller asks again.
func (w *world) do(c call) (any, error) {
	w.Helper()

	answer, essence, err := w.once(c)

	if !w.calm && rapid.IntRange(0, 7).Draw(w.T, "answer is lost") == 7 {
		again, repeated, errAgain := w.once(c)
		if essence != nil && err == nil {
			require.NoError(w, errAgain, "%s again", c.verb)
			require.Empty(w, cmp.Diff(essence, repeated, equal()), "a replay of %s gives the first answer", c.verb)
		}

		answer, err = again, errAgain
	}

	w.history = append(w.history, c)
	w.Logf("%s %s: %v", w.now.Format(time.TimeOnly), c.verb, err)

	return answer, err
}

// once makes a call of both stores, whose answers must agree.
func (w *world) once(c call) (answer, essence any, err error) {
	w.Helper()

	want, _, wantErr := c.run(w.Context(), w.model)
	replica := rapid.IntRange(0, len(w.real.Replicas)-1).Draw(w.T, "replica")
	got, essence, err := c.run(w.Context(), w.real.Replicas[replica])
	w.calls[c.verb]++
	w.verb = c.verb

	require.Equal(w, refusal(wantErr), refusal(err), "%s: the model says %v, the store %v", c.verb, wantErr, err)

	if diff := cmp.Diff(want, got, equal()); err == nil && diff != "" {
		w.Fatalf("%s: model (-) and store (+) answer:\n%s", c.verb, diff)
	}

	w.learn(got, err)
	w.check()

	return got, essence, err
}

// refusal is what a caller can tell an error by.
func refusal(err error) string {
	if err == nil {
		return ""
	}

	return string(pipeline.ReasonOf(err))
}

// id returns a new id, which sorts after all before.
func (w *world) id(kind string) string {
	w.made++

	return fmt.Sprintf("%s%04d", kind, w.made)
}

// check is what holds after every call.
func (w *world) check() {
	w.Helper()

	s := w.read(w.real.Replicas[0])
	want := w.read(w.model)

	// To compare deeply is quicker, to tell the difference takes more.
	if !reflect.DeepEqual(want, s) {
		if diff := cmp.Diff(want, s, equal()); diff != "" {
			w.Fatalf("after %s model (-) and store (+) differ:\n%s", w.verb, diff)
		}
	}

	w.audit(s)
	w.last = s
}
