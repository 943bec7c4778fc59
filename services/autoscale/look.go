package autoscale

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// What a task takes one slot, where nothing better is known: a probe, a job
	// whose tasks aren't known, and anything at all.
	probeTime   = time.Second
	jobTime     = 30 * time.Second
	leastTime   = 200 * time.Millisecond
	firstSpeed  = 1
	smoothing   = 0.3
	leastSample = 2 * time.Second // of slot time, to measure a speed
)

// look reads the pool, and the provider's list when it is time.
func (r *Reconciler) look(ctx context.Context) (Snapshot, pipeline.PoolView, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	view, err := r.deps.Store.ReadPool(ctx)
	if err != nil {
		return Snapshot{}, view, fmt.Errorf("read pool: %w", err)
	}
	now := r.deps.Now()
	if !r.resumed {
		r.resumed, r.told = true, view.Report
		r.brakes.resume(view.Report.Problems)
	}
	r.measure(view, now)
	s := Snapshot{
		Settings:        view.Change.Of(r.cfg.Settings),
		SlotsPerMachine: r.cfg.SlotsPerMachine,
		Patience:        max(2*r.latency, r.cfg.Patience),
		StartTimeout:    r.cfg.StartTimeout,
		StopTimeout:     r.cfg.StopTimeout,
		Hold:            r.brakes.growth(now),
		Work:            r.work(view),
	}
	listed := false
	if !now.Before(r.listAt) && !r.brakes.stopped(now) {
		listed, s.Strangers = r.list(ctx, &view)
	}
	s.Machines = r.join(view, listed, now)
	if listed {
		r.confirm(ctx, &s)
		r.listAt = now.Add(quietTick)
	}
	r.listSoon(s)
	return s, view, nil
}

// listSoon brings the next reading of the list forward, if the machines there
// are by now make it worth it.
func (r *Reconciler) listSoon(s Snapshot) {
	at := r.listed.Add(listPause(s))
	if at.Before(r.unlisted) {
		at = r.unlisted
	}
	if at.Before(r.listAt) {
		r.listAt = at
	}
}

// listPause is after how long the provider's list is worth reading again. What
// has stopped changes no more by itself.
func listPause(s Snapshot) time.Duration {
	pause := quietTick
	for _, m := range s.Machines {
		if m.State != pipeline.MachineStopped {
			pause = min(pause, busyTick)
		}
		switch m.State {
		case pipeline.MachineCreating, pipeline.MachineStopping, pipeline.MachineFailed:
			return soonTick
		case pipeline.MachineRunning, pipeline.MachineDraining:
			if m.Silent > 0 || m.Draining {
				return soonTick
			}
		case pipeline.MachineStarting:
			pause = min(pause, soonTick*2)
		case pipeline.MachineStopped, pipeline.MachineDestroyed:
		}
	}
	return pause
}

// list reads the provider's list, and finds those without a record. One that
// was reserved after the records were read is none of them, hence the second
// look.
func (r *Reconciler) list(ctx context.Context, view *pipeline.PoolView) (bool, []Stranger) {
	instances, err := r.deps.Provider.List(ctx)
	now := r.deps.Now()
	r.listed, r.unlisted = now, time.Time{}
	r.listAt = now.Add(soonTick)
	if err != nil {
		r.note(ctx, "list", "", "", err)
		r.unlisted = now.Add(max(soonTick, retryAfter(err)))
		r.listAt = r.unlisted
		return false, nil
	}
	r.brakes.reached()
	strange := without(instances, view.Machines)
	if len(strange) > 0 {
		again, err := r.deps.Store.ReadPool(ctx)
		if err != nil {
			return false, nil
		}
		*view = again
		strange = without(strange, view.Machines)
	}
	r.seen = map[string]machine.Instance{}
	for _, i := range instances {
		r.seen[i.ID] = i
	}
	attached := attachedMachines(*view)
	var strangers []Stranger
	for _, i := range strange {
		strangers = append(strangers, Stranger{
			ID: i.ID, ProviderID: i.ProviderID, Attached: attached[i.ID], Resting: r.brakes.resting(i.ProviderID, now),
		})
	}
	return true, strangers
}

func without(instances []machine.Instance, records []pipeline.Machine) []machine.Instance {
	known := map[string]bool{}
	for _, m := range records {
		known[m.ID] = true
	}
	var unknown []machine.Instance
	for _, i := range instances {
		if !known[i.ID] {
			unknown = append(unknown, i)
		}
	}
	return unknown
}

func attachedMachines(view pipeline.PoolView) map[string]bool {
	attached := map[string]bool{}
	for _, w := range view.Workers {
		if w.Attached && w.MachineID != "" {
			attached[w.MachineID] = true
		}
	}
	return attached
}

// join sees each machine with its instance and its workers.
func (r *Reconciler) join(view pipeline.PoolView, listed bool, now time.Time) []Machine {
	attached, busy, taking := attachedMachines(view), map[string]bool{}, map[string]bool{}
	for _, w := range view.Workers {
		busy[w.MachineID] = busy[w.MachineID] || len(w.Held) > 0
		taking[w.MachineID] = taking[w.MachineID] || !w.Draining
	}
	machines := make([]Machine, 0, len(view.Machines))
	silent := map[string]time.Time{}
	for _, record := range view.Machines {
		i, there := r.seen[record.ID]
		m := Machine{
			ID: record.ID, ProviderID: record.ProviderID, State: record.State, Unseen: !listed,
			InState: max(0, view.Now.Sub(record.Changed)), Busy: busy[record.ID],
			Draining: attached[record.ID] && !taking[record.ID], Resting: r.brakes.resting(record.ID, now),
		}
		if there {
			m.Instance, m.Outdated, m.HostLost = i.State, i.Outdated, i.HostLost
			if m.ProviderID == "" || listed {
				m.ProviderID, m.Unnamed = i.ProviderID, m.ProviderID == ""
			}
		}
		if !attached[record.ID] {
			since, known := r.silentSince[record.ID]
			if !known {
				since = now
			}
			silent[record.ID] = since
			m.Silent = max(now.Sub(since), time.Nanosecond)
		}
		machines = append(machines, m)
	}
	r.silentSince = silent
	return machines
}

// confirm asks for each machine by itself that would be ended because of what
// the list shows, which may be late.
func (r *Reconciler) confirm(ctx context.Context, s *Snapshot) {
	for i := range s.Machines {
		m := &s.Machines[i]
		action, _ := upkeep(*s, *m)
		if !doubtful(action) || m.ProviderID == "" {
			continue
		}
		got, err := r.deps.Provider.Get(ctx, m.ProviderID)
		switch {
		case machine.ClassOf(err) == machine.NotFound:
			m.Instance = ""
		case err != nil:
			r.note(ctx, "get", m.ID, "", err)
			m.Unseen = true
		default:
			m.Instance, m.Outdated, m.HostLost = got.State, got.Outdated, got.HostLost
			r.seen[m.ID] = got
		}
	}
}

// measure learns how fast machines come and work.
func (r *Reconciler) measure(view pipeline.PoolView, now time.Time) {
	known := map[string]bool{}
	for _, m := range view.Machines {
		known[m.ID] = true
		began, waits := r.asked[m.ID]
		if !waits || m.State == pipeline.MachineCreating || m.State == pipeline.MachineStarting {
			continue
		}
		delete(r.asked, m.ID)
		if m.State == pipeline.MachineRunning {
			took := now.Sub(began) - max(0, view.Now.Sub(m.Changed)) // it attached then
			r.latency += time.Duration(smoothing * float64(took-r.latency))
			r.metrics.came(took)
		}
	}
	maps.DeleteFunc(r.asked, func(id string, _ time.Time) bool { return !known[id] })
	r.latency = min(max(r.latency, time.Second), time.Minute)
	if r.speed == 0 {
		r.speed, r.jobWeight = view.Report.Speed, view.Report.JobWeight
	}
	if view.Took >= leastSample && view.Done > 0 {
		measured := view.Done / view.Took.Seconds()
		if r.speed == 0 {
			r.speed = measured
		}
		r.speed += smoothing * (measured - r.speed)
	}
	if view.JobWeight > 0 {
		if r.jobWeight == 0 {
			r.jobWeight = view.JobWeight
		}
		r.jobWeight += smoothing * (view.JobWeight - r.jobWeight)
	}
}

// work estimates what waits and what runs, in time of one slot.
func (r *Reconciler) work(view pipeline.PoolView) Work {
	speed := r.speed
	if speed <= 0 {
		speed = firstSpeed
	}
	takes := func(weight float64) time.Duration { return time.Duration(weight / speed * float64(time.Second)) }
	job := jobTime
	if r.jobWeight > 0 {
		job = takes(r.jobWeight)
	}
	all := func(w pipeline.Work, probe time.Duration) time.Duration {
		sum := time.Duration(w.Probes)*probe + takes(w.EncodeWeight+w.LightWeight)
		return max(sum, time.Duration(w.Tasks())*leastTime)
	}
	work := Work{
		Ready:     int(view.Stats.ReadyTasks),
		Waiting:   all(view.Waiting, probeTime+job),
		Running:   all(view.Running, probeTime),
		OnlyLight: view.Waiting.Lights > 0 && view.Waiting.Probes+view.Waiting.Encodes == 0,
	}
	for _, w := range view.Workers {
		if w.Attached && !w.Draining {
			work.BusySlots += len(w.Held)
			work.FreeSlots += max(0, w.Slots-len(w.Held))
		}
	}
	return work
}
