package autoscale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// The calls of a provider, as metrics and brakes tell them apart.
const (
	callCreate  = "create"
	callStart   = "start"
	callStop    = "stop"
	callDestroy = "destroy"
)

// callError is a failed call of the provider about a machine.
type callError struct {
	call, id, region string
	err              error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// step is what the actions of one step have in common.
type step struct {
	*Reconciler

	settings pipeline.PoolSettings
	workers  []pipeline.Worker

	mu     sync.Mutex
	begun  map[string]time.Time // when machines were created or started
	passed []*callError         // regions that were passed over
}

// apply carries out actions at once and waits for all. What fails rests.
func (r *Reconciler) apply(ctx context.Context, actions []Action, s Snapshot, view pipeline.PoolView) {
	st := &step{Reconciler: r, settings: s.Settings, workers: view.Workers, begun: map[string]time.Time{}}
	errs := make([]error, len(actions))
	var group errgroup.Group
	group.SetLimit(r.cfg.ActionsAtOnce)
	for i, a := range actions {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, actionTimeout)
			defer cancel()
			errs[i] = st.do(ctx, a)
			return nil
		})
	}
	_ = group.Wait() // errs has them

	now := r.deps.Now()
	for id, at := range st.begun {
		if _, waits := r.asked[id]; !waits {
			r.asked[id] = at
		}
	}
	for i, a := range actions {
		log := r.deps.Log.With("action", string(a.Kind), "machine_id", a.MachineID, "provider_id", a.ProviderID, "reason", a.Reason)
		r.metrics.acted(a.Kind, errs[i])
		if a.Fault != "" {
			r.brakes.broke(a.Fault, a.MachineID, broken(a.Reason).Message, now)
		}
		if errs[i] == nil {
			delete(r.brakes.rests, cmp.Or(a.MachineID, a.ProviderID))
			r.after(a)
			log.InfoContext(ctx, "pool action done")
			continue
		}
		r.settle(ctx, a, errs[i], log)
	}
	for _, p := range st.passed {
		r.metrics.failed(p.call, machine.ClassOf(p.err))
		r.deps.Log.WarnContext(ctx, "region is passed over", "region", p.region, "machine_id", p.id, "error", p.err)
		r.brakes.passed(p.region, p.id, p.err, now)
	}
	for _, m := range s.Machines {
		if m.State == pipeline.MachineRunning && m.Silent == 0 && m.InState > steadyAfter {
			r.brakes.ran()
		}
	}
}

// after notes what a success says.
func (r *Reconciler) after(a Action) {
	switch a.Kind {
	case Create:
		r.brakes.made()
	case Start, Stop, Destroy:
		r.brakes.reached()
	case StartAgain, Drain, Adopt, NoteCreated, NoteAttached, NoteDrain, NoteExit, NoteBreak:
	}
}

// settle notes what a failure says.
func (r *Reconciler) settle(ctx context.Context, a Action, err error, log *slog.Logger) {
	var failed *callError
	switch {
	case pipeline.ReasonOf(err) == pipeline.ReasonLeaseLost:
		log.WarnContext(ctx, "this replica leads no more, nothing was done")
		r.lost = r.term
		return
	case errors.As(err, &failed):
		r.note(ctx, failed.call, failed.id, failed.region, failed.err)
	case errors.Is(err, errLimit):
		log.DebugContext(ctx, "the limit is reached by now")
		r.brakes.slow(r.deps.Now(), 0)
		return
	case a.MachineID == "" && a.ProviderID == "": // a creation that the store doesn't take
		r.brakes.slow(r.deps.Now(), soonTick)
	default:
		r.brakes.leave(cmp.Or(a.MachineID, a.ProviderID), r.deps.Now(), soonTick)
	}
	log.WarnContext(ctx, "pool action failed", "error", err)
}

// note takes in a failure of the provider.
func (r *Reconciler) note(ctx context.Context, call, id, region string, err error) {
	class := machine.ClassOf(err)
	r.metrics.failed(call, class)
	log := r.deps.Log.With("call", call, "class", string(class), "machine_id", id, "error", err)
	switch r.brakes.failed(call, id, region, err, r.deps.Now()) {
	case pipeline.ProblemUnauthorized, pipeline.ProblemQuota:
		log.ErrorContext(ctx, "the pool waits for its operator")
	default:
		log.WarnContext(ctx, "provider call failed")
	}
}

// errLimit says that there are as many machines as there may be.
var errLimit = errors.New("the limit of machines is reached")

func (st *step) do(ctx context.Context, a Action) error {
	switch a.Kind {
	case Create:
		return st.create(ctx, a)
	case Start:
		if err := st.move(ctx, a, pipeline.MachineStart, nil); err != nil {
			return err
		}
		return st.start(ctx, a)
	case StartAgain:
		if err := st.move(ctx, a, pipeline.MachineStart, nil); err != nil { // no transition, but it asks whether we lead
			return err
		}
		return st.start(ctx, a)
	case Stop:
		if err := st.move(ctx, a, pipeline.MachineStop, nil); err != nil {
			return err
		}
		err := st.deps.Provider.Stop(ctx, a.ProviderID)
		if machine.ClassOf(err) == machine.NotFound {
			return nil
		}
		return about(callStop, a, "", err)
	case Drain:
		return st.drain(ctx, a)
	case Destroy:
		return st.destroy(ctx, a)
	case Adopt:
		return st.adopt(ctx, a)
	case NoteCreated:
		return st.move(ctx, a, pipeline.MachineCreated, nil)
	case NoteAttached:
		return st.move(ctx, a, pipeline.MachineAttach, nil)
	case NoteDrain:
		return st.move(ctx, a, pipeline.MachineDrain, nil)
	case NoteExit:
		if err := st.lose(ctx, a); err != nil {
			return err
		}
		return st.move(ctx, a, pipeline.MachineExit, nil)
	case NoteBreak:
		if err := st.move(ctx, a, pipeline.MachineBreak, broken(a.Reason)); err != nil {
			return err
		}
		if err := st.lose(ctx, a); err != nil {
			return err
		}
		return st.destroy(ctx, a)
	default:
		return fmt.Errorf("unknown action %s", a.Kind)
	}
}

// about says which call it was that failed; nil if none did.
func about(call string, a Action, region string, err error) error {
	if err == nil {
		return nil
	}
	return &callError{call: call, id: cmp.Or(a.MachineID, a.ProviderID), region: region, err: err}
}

// create reserves a machine, unless it is reserved already, and makes it.
func (st *step) create(ctx context.Context, a Action) error {
	fresh := a.MachineID == ""
	if fresh {
		a.MachineID = st.deps.NewID()
	}
	// A machine that is reserved already stays; the call asks whether we lead.
	reserved, err := st.deps.Store.ReserveMachine(ctx, pipeline.Machine{
		ID: a.MachineID, State: pipeline.MachineCreating, Provider: st.deps.Provider.Name(),
	}, st.settings.Limit, st.term)
	if err != nil {
		return fmt.Errorf("reserve machine: %w", err)
	}
	if !reserved {
		return errLimit
	}
	req := machine.CreateRequest{
		ID: a.MachineID, Regions: st.settings.Regions, Size: a.Size,
		Confirm:    st.leads,
		PassedOver: func(region string, err error) { st.pass(a, region, err) },
	}
	if !fresh {
		req.Size = st.settings.EncodeSize
	}
	if st.cfg.Env != nil {
		req.Env = st.cfg.Env(a.MachineID)
	}
	st.ask(a.MachineID)
	providerID, err := st.deps.Provider.Create(ctx, req)
	switch {
	case pipeline.ReasonOf(err) == pipeline.ReasonLeaseLost:
		return err
	case err != nil:
		err = about(callCreate, a, strings.Join(st.settings.Regions, ","), err)
		if !fresh {
			return err // the try before may have made it: it counts until the list says otherwise
		}
		return st.refused(ctx, a, err)
	}
	a.ProviderID = providerID
	st.deps.Log.InfoContext(ctx, "machine created", "machine_id", a.MachineID, "provider_id", providerID)
	return st.move(ctx, a, pipeline.MachineCreated, nil)
}

// leads is asked when a machine is about to be made, which may be long after
// its reservation was: calls wait for their turn, and processes are paused. A
// later leader may have made and ended the machine meanwhile.
func (st *step) leads() error {
	if st.deps.Term() == st.term {
		return nil
	}
	return &pipeline.Error{Reason: pipeline.ReasonLeaseLost, Message: "The lead was lost before the machine was made."}
}

// ask notes that a machine is on its way.
func (st *step) ask(id string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.begun[id] = st.deps.Now()
}

// pass notes that a machine isn't where it was to be.
func (st *step) pass(a Action, region string, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.passed = append(st.passed, &callError{call: callCreate, id: a.MachineID, region: region, err: err})
}

func (st *step) start(ctx context.Context, a Action) error {
	st.ask(a.MachineID)
	if err := st.deps.Provider.Start(ctx, a.ProviderID); err != nil {
		return st.refused(ctx, a, about(callStart, a, "", err))
	}
	return nil
}

// refused records that a machine doesn't come. An unclear answer leaves it:
// the next look sees whether it is there.
func (st *step) refused(ctx context.Context, a Action, err error) error {
	switch machine.ClassOf(err) {
	case machine.Unclear, machine.NotReady:
		return err
	case machine.RateLimited:
		if a.ProviderID != "" {
			return err // it is started again when it may be
		}
	default:
	}
	reason := machine.MessageOf(err)
	f := &pipeline.Failure{Reason: pipeline.ReasonMachineFault, Message: reason}
	return errors.Join(err, st.move(ctx, a, pipeline.MachineBreak, f))
}

// drain tells the workers of a machine to finish and leave. The machine is moved
// last: one that is DRAINING isn't looked at again.
func (st *step) drain(ctx context.Context, a Action) error {
	for _, w := range st.workers {
		if w.MachineID != a.MachineID {
			continue
		}
		if _, err := st.deps.Store.DrainWorker(ctx, w.ID); err != nil && pipeline.ReasonOf(err) != pipeline.ReasonWorkerNotFound {
			return fmt.Errorf("drain worker %s: %w", w.ID, err)
		}
	}
	return st.move(ctx, a, pipeline.MachineDrain, nil)
}

// adopt records a machine that is there and works.
func (st *step) adopt(ctx context.Context, a Action) error {
	reserved, err := st.deps.Store.ReserveMachine(ctx, pipeline.Machine{
		ID: a.MachineID, State: pipeline.MachineCreating, Provider: st.deps.Provider.Name(), ProviderID: a.ProviderID,
	}, st.settings.Limit, st.term)
	if err != nil {
		return fmt.Errorf("reserve machine: %w", err)
	}
	if !reserved {
		return errLimit
	}
	if err := st.move(ctx, a, pipeline.MachineCreated, nil); err != nil {
		return err
	}
	return st.move(ctx, a, pipeline.MachineAttach, nil)
}

// destroy removes what is left of a machine, and then its record.
func (st *step) destroy(ctx context.Context, a Action) error {
	if a.MachineID != "" { // what it holds is given back, and nobody else leads
		if err := st.lose(ctx, a); err != nil {
			return err
		}
	}
	if a.ProviderID != "" {
		if err := st.deps.Provider.Destroy(ctx, a.ProviderID); err != nil {
			return about(callDestroy, a, "", err)
		}
	}
	if a.MachineID == "" {
		return nil
	}
	return st.move(ctx, a, pipeline.MachineDestroy, nil)
}

func (st *step) lose(ctx context.Context, a Action) error {
	if err := st.deps.Store.LoseMachine(ctx, a.MachineID, st.term); err != nil {
		return fmt.Errorf("lose machine: %w", err)
	}
	return nil
}

func (st *step) move(ctx context.Context, a Action, by pipeline.MachineTransition, f *pipeline.Failure) error {
	_, err := st.deps.Store.MoveMachine(ctx, pipeline.MachineMove{
		ID: a.MachineID, By: by, ProviderID: a.ProviderID, Region: st.regionOf(a), Failure: f, Term: st.term,
	})
	if err != nil && pipeline.ReasonOf(err) != pipeline.ReasonMachineNotFound {
		return fmt.Errorf("record %s: %w", by, err)
	}
	return nil
}

// regionOf is where the list shows a machine to be; empty if it doesn't.
func (st *step) regionOf(a Action) string { return st.seen[a.MachineID].Region }

func broken(reason string) *pipeline.Failure {
	return &pipeline.Failure{Reason: pipeline.ReasonMachineFault, Message: "The machine failed: " + reason + "."}
}
