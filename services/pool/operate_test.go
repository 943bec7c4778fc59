package pool_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/pool"
)

// ofMachines is a pool that makes machines.
func ofMachines(c *pool.Config, _ *pool.Deps) {
	c.Provider = "process"
	c.Settings = pipeline.PoolSettings{Limit: 3, Idle: time.Minute}
	c.WatchInterval = 10 * time.Millisecond
	c.CheckSettings = func(s pipeline.PoolSettings) error {
		if s.EncodeSize == "huge" {
			return &pipeline.Error{
				Reason: pipeline.ReasonRequestInvalid, Message: "No.", Fields: []pipeline.FieldViolation{{Field: "encode_size", Description: "it is huge"}},
			}
		}
		return nil
	}
}

// refusal is what an error tells of itself.
func refusal(t *testing.T, err error) (connect.Code, *tcoderv1.ErrorDetail) {
	t.Helper()
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	for _, d := range coded.Details() {
		value, err := d.Value()
		require.NoError(t, err)
		if detail, ok := value.(*tcoderv1.ErrorDetail); ok {
			return coded.Code(), detail
		}
	}
	require.Fail(t, "no detail", "%v", err)
	return 0, nil
}

// TestUpdatePool: a change is in force on every replica at once, adds to the
// changes before, and outlives a control plane.
func TestUpdatePool(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t, ofMachines), c.replica(t, ofMachines)
	updated, err := first.api().UpdatePool(t.Context(), &tcoderv1.UpdatePoolRequest{
		MachineLimit: new(uint32(7)), IdleThreshold: durationpb.New(5 * time.Minute), Regions: &tcoderv1.PoolRegions{Names: []string{"fra", "iad"}},
	})
	require.NoError(t, err)
	require.EqualValues(t, 7, updated.GetSettings().GetMachineLimit())
	updated, err = second.api().UpdatePool(t.Context(), &tcoderv1.UpdatePoolRequest{MinWarm: new(uint32(2)), EncodeSize: new("big")})
	require.NoError(t, err)
	for _, r := range []*replica{first, second, c.replica(t, ofMachines)} {
		shown, err := r.api().GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
		require.NoError(t, err)
		require.EqualExportedValues(t, updated.GetSettings(), shown.GetSettings())
	}
	require.EqualExportedValues(t, &tcoderv1.PoolSettings{
		MachineLimit: 7, MinWarm: 2, IdleThreshold: durationpb.New(5 * time.Minute), Regions: []string{"fra", "iad"}, EncodeSize: "big",
	}, updated.GetSettings())
	_, err = first.api().UpdatePool(t.Context(), &tcoderv1.UpdatePoolRequest{Regions: &tcoderv1.PoolRegions{}, EncodeSize: new("")})
	require.NoError(t, err)
	shown, err := second.api().GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
	require.NoError(t, err)
	require.Empty(t, shown.GetSettings().GetRegions())
	require.Empty(t, shown.GetSettings().GetEncodeSize())
}

// TestUpdatePoolRefusals: what can't be is refused by the name of the field,
// and nothing is changed; a pool without machines has no settings.
func TestUpdatePoolRefusals(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	api := c.replica(t, ofMachines).api()
	for field, req := range map[string]*tcoderv1.UpdatePoolRequest{
		"machine_limit":    {MachineLimit: new(uint32(10_001))},
		"min_warm":         {MinWarm: new(uint32(4))},
		"idle_threshold":   {IdleThreshold: durationpb.New(-time.Second)},
		"keep_stopped":     {KeepStopped: new(uint32(10_001))},
		"regions.names[1]": {Regions: &tcoderv1.PoolRegions{Names: []string{"fra", "Frank furt"}}},
		"regions.names":    {Regions: &tcoderv1.PoolRegions{Names: []string{"fra", "fra"}}},
		"encode_size":      {EncodeSize: new("huge")}, // the provider's word
	} {
		_, err := api.UpdatePool(t.Context(), req)
		code, detail := refusal(t, err)
		require.Equal(t, connect.CodeInvalidArgument, code, field)
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID, detail.GetReason(), field)
		require.Equal(t, field, detail.GetFields()[0].GetField())
		require.NotEmpty(t, detail.GetFields()[0].GetDescription())
	}
	shown, err := api.GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
	require.NoError(t, err)
	require.EqualExportedValues(t, &tcoderv1.PoolSettings{MachineLimit: 3, IdleThreshold: durationpb.New(time.Minute)}, shown.GetSettings())

	_, err = c.replica(t).api().UpdatePool(t.Context(), &tcoderv1.UpdatePoolRequest{MachineLimit: new(uint32(1))})
	code, detail := refusal(t, err)
	require.Equal(t, connect.CodeFailedPrecondition, code)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_POOL_FIXED, detail.GetReason())
	require.NotEmpty(t, detail.GetRemedy())
}

// TestWatchPool: who watches gets all of the pool at once and again after each
// change, whichever replica made it, and is told when this one stops.
func TestWatchPool(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r, other := c.replica(t, ofMachines), c.replica(t, ofMachines)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := r.api().WatchPool(ctx, &tcoderv1.WatchPoolRequest{})
	require.NoError(t, err)
	defer stream.Close() //nolint:errcheck // it has ended
	see := func(what string, is func(*tcoderv1.WatchPoolResponse) bool) {
		t.Helper()
		for stream.Receive() {
			if is(stream.Msg()) {
				return
			}
		}
		require.Fail(t, "never seen: "+what, "%v", stream.Err())
	}
	see("an empty pool", func(m *tcoderv1.WatchPoolResponse) bool {
		return m.GetPool().GetProvider() == "process" && m.GetPool().GetMachineLimit() == 3 && len(m.GetMachines())+len(m.GetWorkers()) == 0
	})
	c.submit(t)
	see("a task that waits", func(m *tcoderv1.WatchPoolResponse) bool { return m.GetPool().GetReadyTasks() == 1 })
	c.machine(t, "m1")
	see("a machine", func(m *tcoderv1.WatchPoolResponse) bool {
		return len(m.GetMachines()) == 1 && m.GetMachines()[0].GetState() == tcoderv1.MachineState_MACHINE_STATE_STARTING
	})
	w, _ := other.attach(t, &tcoderv1.Hello{MachineId: "m1"})
	see("its worker at work", func(m *tcoderv1.WatchPoolResponse) bool {
		return len(m.GetWorkers()) == 1 && m.GetWorkers()[0].GetId() == w.id && m.GetPool().GetBusySlots() == 1 &&
			m.GetMachines()[0].GetState() == tcoderv1.MachineState_MACHINE_STATE_RUNNING
	})
	_, err = other.api().UpdatePool(ctx, &tcoderv1.UpdatePoolRequest{MachineLimit: new(uint32(5))})
	require.NoError(t, err)
	see("the new limit", func(m *tcoderv1.WatchPoolResponse) bool { return m.GetPool().GetMachineLimit() == 5 })
}

// machine adds a machine that boots.
func (c *cell) machine(t *testing.T, id string) {
	t.Helper()
	reserved, err := c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: id, Provider: "process"}, 10, 0)
	require.NoError(t, err)
	require.True(t, reserved)
	_, err = c.store.MoveMachine(t.Context(), pipeline.MachineMove{ID: id, By: pipeline.MachineCreated, ProviderID: "p-" + id})
	require.NoError(t, err)
}

// TestDrainMachine: its workers are told, on whichever replica, and it takes
// nothing more; a replay is answered alike, and one that boots or isn't there
// is an error that says so.
func TestDrainMachine(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r, other := c.replica(t, ofMachines), c.replica(t, ofMachines)
	drain := func(id string) (*tcoderv1.DrainMachineResponse, error) {
		return other.api().DrainMachine(t.Context(), &tcoderv1.DrainMachineRequest{MachineId: id})
	}
	_, err := drain("")
	code, detail := refusal(t, err)
	require.Equal(t, connect.CodeInvalidArgument, code)
	require.Equal(t, "machine_id", detail.GetFields()[0].GetField())
	_, err = drain("m1")
	code, detail = refusal(t, err)
	require.Equal(t, connect.CodeNotFound, code)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_NOT_FOUND, detail.GetReason())

	c.machine(t, "m1")
	_, err = drain("m1")
	code, detail = refusal(t, err)
	require.Equal(t, connect.CodeNotFound, code)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_WORKER_NOT_FOUND, detail.GetReason())
	require.NotEmpty(t, detail.GetRemedy())

	w, _ := r.attach(t, &tcoderv1.Hello{MachineId: "m1"})
	for range 2 {
		res, err := drain("m1")
		require.NoError(t, err)
		require.Equal(t, "m1", res.GetMachine().GetId())
		require.Equal(t, tcoderv1.MachineState_MACHINE_STATE_DRAINING, res.GetMachine().GetState())
	}
	expect(w, (*tcoderv1.AttachResponse).GetDrain)
	c.submit(t)
	free, _ := r.attach(t, &tcoderv1.Hello{})
	require.EqualValues(t, 1, free.assignment().GetLease().GetAttempt())
}
