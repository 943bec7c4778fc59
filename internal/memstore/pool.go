package memstore

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// PoolStats implements [pipeline.PoolStore].
func (s *Store) PoolStats(context.Context) (pipeline.PoolStats, error) {
	defer s.begin()()

	return s.stats(), nil
}

func (s *Store) stats() pipeline.PoolStats {
	stats := pipeline.PoolStats{LeasedTasks: int64(len(s.leased)), DelayedTasks: int64(len(s.delayed))}

	for _, p := range s.turns.projects {
		if p.atLimit {
			stats.LimitedTasks += int64(len(p.ready))
		}

		if !p.inTurn {
			continue
		}

		stats.ReadyTasks += int64(len(p.ready))

		for _, e := range p.ready {
			stats.OldestReady = max(stats.OldestReady, s.now.Sub(e.queued))
		}
	}

	return stats
}

// ReadPool implements [pipeline.PoolStore].
func (s *Store) ReadPool(context.Context) (pipeline.PoolView, error) {
	defer s.begin()()

	v := pipeline.PoolView{
		Stats: s.stats(), Machines: s.listMachines(), Workers: s.listWorkers(), Change: s.change, Version: s.version,
		Report: s.report, Term: s.term, Now: s.now,
	}
	jobs := map[*job]bool{}

	for _, name := range slices.Sorted(maps.Keys(s.turns.projects)) {
		p := s.turns.projects[name]
		if !p.inTurn {
			continue
		}

		for _, e := range p.ready {
			add(&v.Waiting, e.task, 1, jobs)
		}
	}

	for _, t := range sorted(s.leased, func(*task) bool { return true }) { // sums of fractions depend on the order
		add(&v.Running, t, 1-t.told, jobs)

		if began := t.newest().Started; t.told > 0 && t.rec.Weight > 0 && t.kept.After(began) {
			v.Done += t.told * t.rec.Weight
			v.Took += t.kept.Sub(began)
		}
	}

	planned := 0.0

	for _, j := range slices.SortedFunc(maps.Keys(jobs), func(a, b *job) int { return strings.Compare(a.rec.ID, b.rec.ID) }) {
		if w := j.weight(); w > 0 {
			v.JobWeight += w
			planned++
		}
	}

	v.JobWeight /= max(1, planned)

	return v, nil
}

// add adds what is left of a task to some work.
func add(w *pipeline.Work, t *task, left float64, jobs map[*job]bool) {
	weight := max(0, t.rec.Weight) * left

	switch t.rec.Kind {
	case pipeline.KindProbe:
		w.Probes++

		return
	case pipeline.KindEncode:
		w.Encodes++
		w.EncodeWeight += weight
	default:
		w.Lights++
		w.LightWeight += weight
	}

	jobs[t.job] = true
}

// ChangePool implements [pipeline.PoolStore].
func (s *Store) ChangePool(_ context.Context, c pipeline.PoolChange, version int64) (bool, error) {
	defer s.begin()()

	if s.version > 0 && reflect.DeepEqual(c, s.change) {
		return true, nil
	}

	if version != s.version {
		return false, nil
	}

	s.change = c
	s.version++
	s.wake(pipeline.WakePool)

	return true, nil
}

// ReportPool implements [pipeline.PoolStore].
func (s *Store) ReportPool(_ context.Context, r pipeline.PoolReport, term int64) error {
	defer s.begin()()

	if err := s.mayAct(term); err != nil {
		return err
	}

	s.report = r

	return nil
}

// TakeTurn implements [pipeline.PoolStore].
func (s *Store) TakeTurn(_ context.Context, name string, p pipeline.Pace, most time.Duration) (time.Duration, bool, error) {
	defer s.begin()()

	busy := s.taken[name]
	if busy.Before(s.now) {
		busy = s.now
	}

	wait := max(0, busy.Sub(s.now)-time.Duration(p.Burst-1)*p.Every)
	if wait > most {
		return 0, false, nil
	}

	s.taken[name] = busy.Add(p.Every)

	return wait, true, nil
}
