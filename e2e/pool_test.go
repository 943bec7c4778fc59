package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// A pool guarantees that it can be seen, set and emptied while it runs: a
// change takes effect at once, a machine that is drained leaves and another
// one takes its place, and what can't be is refused by its name.
func TestPool(t *testing.T) {
	t.Parallel()
	s := up(t, "--pool-limit", "1")
	c := client(t, s.url)
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	see := func(what string, is func(*tcoderv1.WatchPoolResponse) bool) *tcoderv1.WatchPoolResponse {
		t.Helper()
		for pool, err := range c.WatchPool(ctx) {
			require.NoError(t, err)
			if is(pool) {
				return pool
			}
		}
		require.Fail(t, "never seen: "+what)

		return nil
	}
	running := func(pool *tcoderv1.WatchPoolResponse) string {
		for _, m := range pool.GetMachines() {
			if m.GetState() == tcoderv1.MachineState_MACHINE_STATE_RUNNING {
				return m.GetId()
			}
		}

		return ""
	}
	settings, err := c.UpdatePool(ctx, &tcoderv1.UpdatePoolRequest{
		MachineLimit: new(uint32(2)), MinWarm: new(uint32(1)), IdleThreshold: durationpb.New(5 * time.Minute),
	})
	require.NoError(t, err)
	require.EqualValues(t, 2, settings.GetMachineLimit())
	first := running(see("a machine that is kept warm", func(p *tcoderv1.WatchPoolResponse) bool { return running(p) != "" }))
	pool, err := c.Pool(ctx)
	require.NoError(t, err)
	require.Equal(t, "process", pool.GetProvider())
	require.EqualValues(t, 1, pool.GetSettings().GetMinWarm())
	workers, err := c.Workers(ctx)
	require.NoError(t, err)
	require.Equal(t, first, workers[0].GetMachineId())

	out, errs, code := cli(t, s.url, "pool", "set", "max=3", "idle=4m")
	require.Zero(t, code, errs)
	require.Equal(t, "max=3 warm=1 idle=4m0s stopped=0\n", out)
	out, errs, code = cli(t, s.url, "pool", "status")
	require.Zero(t, code, errs)
	for _, part := range []string{"machines  1 of 3", "max=3 warm=1 idle=4m0s", first, "RUNNING", workers[0].GetId()} {
		require.Contains(t, out, part)
	}
	out, errs, code = cli(t, s.url, "pool", "drain", first)
	require.Zero(t, code, errs)
	require.Equal(t, first+" DRAINING\n", out)
	see("another machine in its place", func(p *tcoderv1.WatchPoolResponse) bool { return running(p) != "" && running(p) != first })

	for field, args := range map[string]string{
		"min_warm": "warm=9", "regions.names[0]": "regions=fra", "encode_size": "size=performance-4x", "keep_stopped": "stopped=99999",
	} {
		_, errs, code = cli(t, s.url, "pool", "set", args)
		require.Equal(t, 1, code)
		require.Contains(t, errs, field)
	}
	_, errs, code = cli(t, s.url, "pool", "set", "max=many")
	require.Equal(t, 2, code)
	require.Contains(t, errs, `max: "many" is not a number`)
	_, errs, code = cli(t, s.url, "pool", "drain", "nosuch")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "there is no machine and no worker nosuch")
	_, err = c.DrainMachine(ctx, "nosuch")
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_NOT_FOUND, tcoder.ReasonOf(err))
	_, err = c.UpdatePool(ctx, &tcoderv1.UpdatePoolRequest{MinWarm: new(uint32(9))})
	var refused *tcoder.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "min_warm", refused.Fields[0].GetField())
}
