package autoscale

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// look reads the pool. The order matters: a machine is reserved before it is
// created, and a task leaves the queue before it fills a slot.
func (r *Reconciler) look(ctx context.Context) (Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	records, err := r.deps.Store.ListMachines(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list machines: %w", err)
	}
	instances, err := r.deps.Provider.List(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list instances: %w", err)
	}
	orphans, err := r.orphans(ctx, instances, records)
	if err != nil {
		return Snapshot{}, err
	}
	stats, err := r.deps.Store.PoolStats(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("pool stats: %w", err)
	}
	workers, err := r.deps.Store.ListWorkers(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list workers: %w", err)
	}
	s := Snapshot{
		Limit:           r.cfg.Limit,
		SlotsPerMachine: r.cfg.SlotsPerMachine,
		KeepStopped:     r.cfg.KeepStopped,
		StartTimeout:    r.cfg.StartTimeout,
		StopTimeout:     r.cfg.StopTimeout,
		Orphans:         orphans,
		ReadyTasks:      int(stats.ReadyTasks),
	}
	r.attached = false
	for _, w := range workers {
		r.attached = r.attached || w.Attached
		if w.Attached && !w.Draining {
			s.FreeSlots += max(0, w.Slots-len(w.Held))
		}
	}
	s.Machines = r.join(records, instances, workers)
	s.Hold = r.hold(s.Machines)
	return s, nil
}

// orphans returns the instances without a record. One that was reserved after
// the records were read is none, hence the second look.
func (r *Reconciler) orphans(ctx context.Context, instances []machine.Instance, records []pipeline.Machine) ([]string, error) {
	unknown := without(instances, records)
	if len(unknown) == 0 {
		return nil, nil
	}
	records, err := r.deps.Store.ListMachines(ctx)
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var ids []string
	for _, i := range without(unknown, records) {
		ids = append(ids, i.ProviderID)
	}
	return ids, nil
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

// join sees each machine with its instance and its workers.
func (r *Reconciler) join(records []pipeline.Machine, instances []machine.Instance, workers []pipeline.Worker) []Machine {
	byID := map[string]machine.Instance{}
	for _, i := range instances {
		byID[i.ID] = i
	}
	heard, taking := map[string]bool{}, map[string]bool{}
	for _, w := range workers {
		heard[w.MachineID] = true
		taking[w.MachineID] = taking[w.MachineID] || !w.Draining
	}
	now := time.Now()
	machines := make([]Machine, 0, len(records))
	silent := map[string]time.Time{}
	for _, record := range records {
		m := Machine{
			ID: record.ID, ProviderID: record.ProviderID, State: record.State,
			Instance: byID[record.ID].State,
			InState:  now.Sub(record.Changed), // the store's clock against ours: good to seconds
			Draining: heard[record.ID] && !taking[record.ID],
		}
		if i, ok := byID[record.ID]; ok {
			m.ProviderID = i.ProviderID
		}
		if !heard[record.ID] {
			since, known := r.silentSince[record.ID]
			if !known {
				since = now
			}
			silent[record.ID] = since
			m.Silent = now.Sub(since)
		}
		machines = append(machines, m)
	}
	r.silentSince = silent
	return machines
}

// hold reports whether growth waits for its backoff. A machine that has run
// for a while ends the row of failures.
func (r *Reconciler) hold(machines []Machine) bool {
	for _, m := range machines {
		if m.State == pipeline.MachineRunning && m.Instance == machine.Running && m.InState > steadyAfter {
			r.failures = 0
		}
	}
	return time.Now().Before(r.holdUntil)
}

// apply carries out actions at once and waits for all.
func (r *Reconciler) apply(ctx context.Context, actions []Action) error {
	r.failedNow.Store(false)
	var group errgroup.Group
	group.SetLimit(actionsAtOnce)
	for _, a := range actions {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, actionTimeout)
			defer cancel()
			log := r.deps.Log.With("action", string(a.Kind), "machine_id", a.MachineID, "provider_id", a.ProviderID)
			if err := r.do(ctx, a); err != nil {
				log.WarnContext(ctx, "pool action failed", "reason", a.Reason, "error", err)
				return err
			}
			if a.MachineID != "" || a.Kind != Create { // a new machine is told of where its id is known
				log.InfoContext(ctx, "pool action done", "reason", a.Reason)
			}
			return nil
		})
	}
	err := group.Wait()
	if r.failedNow.Load() {
		r.holdUntil = time.Now().Add(min(maxBackoff, firstBackoff<<min(r.failures, 10)))
		r.failures++
	}
	return err
}

func (r *Reconciler) do(ctx context.Context, a Action) error {
	switch a.Kind {
	case Create:
		return r.create(ctx, a.MachineID)
	case Start:
		return r.start(ctx, a)
	case Stop:
		if err := r.move(ctx, a, pipeline.MachineStop, nil); err != nil {
			return err
		}
		return ignoreMissing(r.deps.Provider.Stop(ctx, a.ProviderID))
	case Destroy:
		return r.destroy(ctx, a)
	case NoteCreated:
		return r.move(ctx, a, pipeline.MachineCreated, nil)
	case NoteDrain:
		return r.move(ctx, a, pipeline.MachineDrain, nil)
	case NoteExit:
		if err := r.deps.Store.LoseMachine(ctx, a.MachineID); err != nil {
			return fmt.Errorf("lose machine: %w", err)
		}
		return r.move(ctx, a, pipeline.MachineExit, nil)
	case NoteBreak:
		if a.Fault {
			r.failedNow.Store(true)
		}
		if err := r.deps.Provider.Destroy(ctx, a.ProviderID); err != nil {
			return err
		}
		if err := r.deps.Store.LoseMachine(ctx, a.MachineID); err != nil {
			return fmt.Errorf("lose machine: %w", err)
		}
		return r.move(ctx, a, pipeline.MachineBreak, broken(a.Reason))
	default:
		return fmt.Errorf("unknown action %s", a.Kind)
	}
}

// create reserves a machine, unless it is reserved already, and makes it.
func (r *Reconciler) create(ctx context.Context, id string) error {
	if id == "" {
		id = ulid.Make().String()
		record := pipeline.Machine{ID: id, State: pipeline.MachineCreating, Provider: r.deps.Provider.Name(), Region: r.cfg.Region}
		reserved, err := r.deps.Store.ReserveMachine(ctx, record, r.cfg.Limit)
		if err != nil {
			return fmt.Errorf("reserve machine: %w", err)
		}
		if !reserved {
			return nil // the limit is reached by now
		}
	}
	req := machine.CreateRequest{ID: id}
	if r.cfg.Region != "" {
		req.Regions = []string{r.cfg.Region}
	}
	if r.cfg.Env != nil {
		req.Env = r.cfg.Env(id)
	}
	a := Action{MachineID: id}
	providerID, err := r.deps.Provider.Create(ctx, req)
	if err != nil {
		return r.failed(ctx, a, err)
	}
	a.ProviderID = providerID
	r.deps.Log.InfoContext(ctx, "machine created", "machine_id", id, "provider_id", providerID)
	return r.move(ctx, a, pipeline.MachineCreated, nil)
}

func (r *Reconciler) start(ctx context.Context, a Action) error {
	if err := r.move(ctx, a, pipeline.MachineStart, nil); err != nil {
		return err
	}
	if err := r.deps.Provider.Start(ctx, a.ProviderID); err != nil {
		return r.failed(ctx, a, err)
	}
	return nil
}

// failed records that a machine didn't start. An unclear answer leaves it:
// the next look sees whether it is there.
func (r *Reconciler) failed(ctx context.Context, a Action, err error) error {
	r.failedNow.Store(true)
	if errors.Is(err, machine.ErrUnavailable) {
		return err
	}
	return errors.Join(err, r.move(ctx, a, pipeline.MachineBreak, broken("its provider refused it")))
}

func (r *Reconciler) destroy(ctx context.Context, a Action) error {
	if a.ProviderID != "" {
		if err := r.deps.Provider.Destroy(ctx, a.ProviderID); err != nil {
			return err
		}
	}
	if a.MachineID == "" {
		return nil
	}
	if err := r.deps.Store.LoseMachine(ctx, a.MachineID); err != nil {
		return fmt.Errorf("lose machine: %w", err)
	}
	return r.move(ctx, a, pipeline.MachineDestroy, nil)
}

func (r *Reconciler) move(ctx context.Context, a Action, by pipeline.MachineTransition, f *pipeline.Failure) error {
	_, err := r.deps.Store.MoveMachine(ctx, a.MachineID, by, a.ProviderID, f)
	if err != nil && pipeline.ReasonOf(err) != pipeline.ReasonMachineNotFound {
		return fmt.Errorf("record %s: %w", by, err)
	}
	return nil
}

func broken(reason string) *pipeline.Failure {
	return &pipeline.Failure{Reason: pipeline.ReasonMachineFault, Message: "The machine failed: " + reason + "."}
}

func ignoreMissing(err error) error {
	if errors.Is(err, machine.ErrNotFound) {
		return nil
	}
	return err
}
