package memstore

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// entry is a ready task in its project's queue.
type entry struct {
	priority int
	queued   time.Time
	task     *task
}

// compareEntries puts the best first: by priority, then the oldest job, then the index.
func compareEntries(a, b entry) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), a.queued.Compare(b.queued), compareTasks(a.task, b.task))
}

// project is one that takes turns with the others.
type project struct {
	name    string
	ready   []entry // best first
	running int     // leases

	inTurn   bool // it has ready tasks and isn't at the limit
	atLimit  bool // it has ready tasks and is at the limit
	priority int  // while in turn, of its best task
	added    bool // since it was placed

	// finish is, for each priority, when by the virtual clock of that priority
	// what the project was served so far is paid for.
	finish map[int]int64
}

// turns is start-time fair queueing. Each priority has a virtual clock, which
// shows the start of the task that was served last. A task costs its project
// one unit. A project that comes to a priority starts at its own finish or at
// the clock, whichever is later: it is owed nothing for the time that it
// didn't wait, and gains nothing by leaving.
type turns struct {
	limit    int // of running tasks of each project; 0: none
	clock    map[int]int64
	projects map[string]*project
}

func newTurns() turns {
	return turns{clock: map[int]int64{}, projects: map[string]*project{}}
}

func (t *turns) project(name string) *project {
	p := t.projects[name]
	if p == nil {
		p = &project{name: name, finish: map[int]int64{}}
		t.projects[name] = p
	}

	return p
}

func (t *turns) add(name string, e entry) {
	p := t.project(name)
	at, _ := slices.BinarySearchFunc(p.ready, e, compareEntries)
	p.ready = slices.Insert(p.ready, at, e)
	p.added = true
}

func (t *turns) remove(name string, e entry) {
	p := t.project(name)
	if at, found := slices.BinarySearchFunc(p.ready, e, compareEntries); found {
		p.ready = slices.Delete(p.ready, at, at+1)
	}
}

// place puts a project where it belongs after its queue or its leases changed,
// and reports whether there is something new to be had from it.
func (t *turns) place(name string) bool {
	p := t.project(name)
	full := t.limit > 0 && p.running >= t.limit
	waits := len(p.ready) > 0
	came := waits && !full && (p.added || p.atLimit)
	was, at := p.inTurn, p.priority
	p.inTurn, p.atLimit, p.added = waits && !full, waits && full, false

	if p.inTurn {
		p.priority = p.ready[0].priority
		if !was || at != p.priority {
			p.finish[p.priority] = max(p.finish[p.priority], t.clock[p.priority])
		}
	}

	return came
}

// setLimit is the limit of running tasks from now on. It reports whether there
// is something new to be had by it.
func (t *turns) setLimit(limit int) bool {
	if limit == t.limit {
		return false
	}

	t.limit = limit
	came := false

	for name := range t.projects {
		came = t.place(name) || came
	}

	return came
}

// first is the project whose turn it is, nil if there is none.
func (t *turns) first() *project {
	var best *project

	for _, p := range t.projects {
		if p.inTurn && (best == nil || t.before(p, best)) {
			best = p
		}
	}

	return best
}

func (t *turns) before(a, b *project) bool {
	return cmp.Or(
		cmp.Compare(b.priority, a.priority),
		cmp.Compare(a.finish[a.priority], b.finish[b.priority]),
		strings.Compare(a.name, b.name),
	) < 0
}

// serve takes the next task out of its queue; it runs from now on.
func (t *turns) serve() (*task, bool) {
	p := t.first()
	if p == nil {
		return nil, false
	}

	next := p.ready[0].task
	p.ready = slices.Delete(p.ready, 0, 1)
	p.running++
	t.clock[p.priority] = max(t.clock[p.priority], p.finish[p.priority])
	p.finish[p.priority]++
	t.place(p.name)

	return next, true
}

// ahead is how many tasks are served before one, if nothing more comes and no
// other project comes to its limit. Of a project at its limit, those of its own.
func (t *turns) ahead(name string, e entry) int64 {
	own := t.project(name)
	if own.atLimit {
		at, _ := slices.BinarySearchFunc(own.ready, e, compareEntries)

		return int64(at)
	}

	later := t.rehearsal()

	for n := int64(0); ; n++ {
		next, found := later.serve()
		if !found || next == e.task {
			return n
		}
	}
}

// rehearsal is a copy of those whose turn will come, without limit.
func (t *turns) rehearsal() turns {
	c := newTurns()
	c.clock = maps.Clone(t.clock)

	for name, p := range t.projects {
		if p.inTurn {
			twin := *p
			twin.ready = slices.Clone(p.ready)
			twin.finish = maps.Clone(p.finish)
			c.projects[name] = &twin
		}
	}

	return c
}
