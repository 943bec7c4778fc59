package crash_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// kind is a kind of fault.
type kind string

const (
	killControl    kind = "kill control plane"
	killWorker     kind = "kill worker"
	killRedis      kind = "kill Redis"
	pauseControl   kind = "pause control plane"
	pauseWorker    kind = "pause worker"
	cutWorker      kind = "cut worker off"
	halfOpenWorker kind = "half-open to worker"
	cutRedis       kind = "cut Redis off"
	halfOpenRedis  kind = "half-open to Redis"
)

func kinds() []kind {
	return []kind{
		killControl, killWorker, killRedis, pauseControl, pauseWorker, cutWorker, halfOpenWorker, cutRedis, halfOpenRedis,
	}
}

func (k kind) ofWorker() bool {
	return k == killWorker || k == pauseWorker || k == cutWorker || k == halfOpenWorker
}

// fault is one fault of the plan.
type fault struct {
	kind kind
	// late aims at a task that the store has as done while the control plane
	// waits for that answer; otherwise it aims at one whose worker waits for it.
	late bool
	// worker and replica are whom it hits, where the aim leaves a choice.
	worker, replica int
	// lasts is how long it lasts, as a share of what its kind lasts at most.
	lasts float64
	// broken ends a half-open connection by a reset, not by going on.
	broken bool
}

// plan is the sequence of faults, by the seed: rounds of every kind in random
// order, then more of those that haven't yet hit each state often enough.
type plan struct {
	mu     sync.Mutex
	rng    *rand.Rand
	rounds int
	least  int
	round  []kind
	struck map[kind]int
	hits   map[kind]map[state]int
}

func newPlan(seed uint64, rounds, least int) *plan {
	p := &plan{
		rng: rand.New(rand.NewPCG(seed, seed)), rounds: rounds, least: least,
		struck: map[kind]int{}, hits: map[kind]map[state]int{},
	}
	for _, k := range kinds() {
		p.hits[k] = map[state]int{}
	}

	return p
}

// next returns the next fault; false when there have been enough.
func (p *plan) next() (fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.round) == 0 {
		if p.rounds > 0 {
			p.rounds--
			p.round = kinds()
		} else {
			p.round = p.lacking()
		}
		p.rng.Shuffle(len(p.round), func(i, j int) { p.round[i], p.round[j] = p.round[j], p.round[i] })
	}
	if len(p.round) == 0 {
		return fault{}, false
	}
	f := fault{
		kind: p.round[0], late: p.rng.IntN(3) > 0, worker: p.rng.IntN(workerCount), replica: p.rng.IntN(replicaCount),
		lasts: p.rng.Float64(), broken: p.rng.IntN(2) == 0,
	}
	p.round = p.round[1:]
	// The rarest moment is aimed at until it was hit often enough.
	f.late = f.late || p.hits[f.kind][unpublished] < p.least

	return f, true
}

// lacking are the kinds of fault that have not hit every state often enough.
func (p *plan) lacking() []kind {
	var list []kind
	for _, k := range kinds() {
		for _, s := range states() {
			if p.hits[k][s] < p.least {
				list = append(list, k)

				break
			}
		}
	}

	return list
}

// hit counts a fault, once for each state that it hit.
func (p *plan) hit(k kind, victims []sight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.struck[k]++
	found := map[state]bool{}
	for _, s := range victims {
		found[s.state] = true
	}
	for s := range found {
		p.hits[k][s]++
	}
}

// short says what is missing, empty if nothing is.
func (p *plan) short() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []string
	for _, k := range p.lacking() {
		missing = append(missing, string(k))
	}

	return strings.Join(missing, ", ")
}

// table is how often each kind of fault hit each state.
func (p *plan) table() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %6s", "fault", "struck")
	for _, s := range states() {
		fmt.Fprintf(&b, "  %s", s)
	}
	for _, k := range kinds() {
		fmt.Fprintf(&b, "\n%-20s %6d", k, p.struck[k])
		for _, s := range states() {
			fmt.Fprintf(&b, "  %*d", len(s), p.hits[k][s])
		}
	}

	return b.String()
}

// lasting is how long a fault lasts, between two bounds.
func (f fault) lasting(least, most time.Duration) time.Duration {
	return least + time.Duration(f.lasts*float64(most-least))
}
