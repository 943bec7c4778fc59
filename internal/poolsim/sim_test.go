package poolsim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/poolsim"
	"github.com/tcoder-dev/tcoder/internal/poolsim/bound"
)

func trace(t *testing.T, name string, seed uint64) poolsim.Trace {
	t.Helper()
	trace, known := poolsim.TraceOf(name, seed)
	require.True(t, known)
	return trace
}

func play(t *testing.T, cfg poolsim.Config) poolsim.Outcome {
	t.Helper()
	o, err := poolsim.Run(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, len(cfg.Trace.Jobs), o.Jobs)
	require.LessOrEqual(t, o.Most, cfg.Policy.Settings.Limit)
	require.Zero(t, o.Running, "machines run an hour after all was done")
	return o
}

// TestBurst guarantees what the pool is held to: 200 jobs of 60 s that come at
// once to an empty pool of at most 20 machines cost at most 1.15 times their
// work in machine time, the idle tails apart, and the 95th percentile of their
// waits is at most 1.3 times what no policy can do better than.
func TestBurst(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			cfg := poolsim.Config{Trace: trace(t, "burst", seed), Policy: poolsim.DefaultPolicy(), Cloud: poolsim.Fly(), Seed: seed}
			o := play(t, cfg)
			least := cfg.LeastWait(0.95)
			require.Greater(t, least, 9*time.Minute)
			require.LessOrEqual(t, o.Overhead(), 1.15)
			require.GreaterOrEqual(t, o.Overhead(), 1.0)
			require.GreaterOrEqual(t, o.Wait.P95, least)
			require.LessOrEqual(t, o.Wait.P95.Seconds(), 1.3*least.Seconds())
			require.Equal(t, 20, o.Made)
		})
	}
}

// TestLadder guarantees that an hour of 1080p on 64 machines that have stopped
// is work for at least 0.8 of the time that they run for, the idle tails apart.
func TestLadder(t *testing.T) {
	t.Parallel()
	policy := poolsim.DefaultPolicy()
	policy.Settings.Limit, policy.Settings.KeepStopped = 64, 64
	o := play(t, poolsim.Config{Trace: poolsim.Ladder(time.Hour, 1), Policy: policy, Cloud: poolsim.Fly(), Seed: 1, Stopped: 64})
	require.LessOrEqual(t, o.Overhead(), 1/0.8)
	require.Equal(t, 64, o.Most)
	require.Zero(t, o.Made)
}

// TestTraces: every trace comes to its end, and in the usual ones nobody waits
// for long while there is room: a machine's start, or a little more where the
// first ones have to be made. Where jobs come evenly, few machines are started
// more often than there is reason to.
func TestTraces(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]struct {
		p95, max time.Duration
		overhead float64
	}{
		"steady": {4 * time.Second, 20 * time.Second, 1.25},
		"sparse": {4 * time.Second, 20 * time.Second, 1.15},
		"clips":  {8 * time.Second, 20 * time.Second, 2.5},
		"long":   {20 * time.Second, 20 * time.Second, 1.15},
		"daily":  {4 * time.Second, 20 * time.Second, 1.25},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := play(t, poolsim.Config{Trace: trace(t, name, 1), Policy: poolsim.DefaultPolicy(), Cloud: poolsim.Fly(), Seed: 1})
			require.LessOrEqual(t, o.Wait.P95, most.p95)
			require.LessOrEqual(t, o.Wait.Max, most.max)
			require.LessOrEqual(t, o.Overhead(), most.overhead)
			require.Zero(t, o.Lost)
		})
	}
}

// TestBadDays: lost answers, full regions and hosts, starts that hang and
// machines that die cost time, and never a job; the limit holds, and nothing
// runs on.
func TestBadDays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			cloud := poolsim.Fly()
			cloud.Faults = poolsim.Faults{LostAnswers: 0.1, RegionFull: 0.1, HostFull: 0.1, Hangs: 0.1, DiesPerHour: 2}
			for _, name := range []string{"burst", "clips", "long"} {
				play(t, poolsim.Config{Trace: trace(t, name, seed), Policy: poolsim.DefaultPolicy(), Cloud: cloud, Seed: seed})
			}
		})
	}
}

// TestSame: the same seed gives the same outcome to the last point, and
// another one another.
func TestSame(t *testing.T) {
	t.Parallel()
	outcome := func(seed uint64) poolsim.Outcome {
		cloud := poolsim.Fly()
		cloud.Faults = poolsim.UsualFaults()
		return play(t, poolsim.Config{Trace: trace(t, "clips", seed), Policy: poolsim.DefaultPolicy(), Cloud: cloud, Seed: seed})
	}
	first, again := outcome(3), outcome(3)
	require.Equal(t, first, again)
	require.NotEqual(t, first.Points, outcome(4).Points)
}

// TestNoPolicyBeatsTheBound: whatever policy is played, the waits of a burst
// aren't shorter than the bound.
func TestNoPolicyBeatsTheBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		seed := rapid.Uint64().Draw(r, "seed")
		jobs := trace(t, "burst", seed)
		jobs.Jobs = jobs.Jobs[:rapid.IntRange(1, 60).Draw(r, "jobs")]
		for i := range jobs.Jobs {
			jobs.Jobs[i].Tasks[0].Takes = time.Duration(rapid.IntRange(2_000, 60_000).Draw(r, "takes")) * time.Millisecond
		}
		limit := rapid.IntRange(1, 12).Draw(r, "limit")
		seconds := func(most int, name string) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(r, name)) * time.Second
		}
		cfg := poolsim.Config{
			Trace: jobs, Cloud: poolsim.Fly(), Seed: seed, After: time.Minute,
			Policy: poolsim.Policy{
				Settings: pipeline.PoolSettings{
					Limit: limit, KeepStopped: rapid.IntRange(0, limit).Draw(r, "keep"), Idle: time.Second + seconds(60, "idle"),
				},
				Slots: rapid.IntRange(1, 3).Draw(r, "slots"), Patience: seconds(60, "patience"), StartLatency: seconds(60, "latency"),
				CreationsAtOnce: rapid.IntRange(1, 12).Draw(r, "creations"),
			},
		}
		o, err := poolsim.Run(t.Context(), cfg)
		require.NoError(r, err)
		require.GreaterOrEqual(r, o.Wait.P95, cfg.LeastWait(0.95))
		require.GreaterOrEqual(r, o.Wait.P50, cfg.LeastWait(0.5))
		require.GreaterOrEqual(r, o.Wait.Max, cfg.LeastWait(1))
	})
}

// TestBoundOfFly: the bound is that of the cloud's limits and least start.
func TestBoundOfFly(t *testing.T) {
	t.Parallel()
	cfg := poolsim.Config{Trace: trace(t, "burst", 1), Policy: poolsim.DefaultPolicy(), Cloud: poolsim.Fly()}
	tasks := make([]time.Duration, 0, len(cfg.Trace.Jobs))
	for _, j := range cfg.Trace.Jobs {
		tasks = append(tasks, j.Tasks[0].Takes)
	}
	want := bound.BurstWait(bound.Pool{Limit: 20, Slots: 1, PerSecond: 1, Burst: 3, Start: 4500 * time.Millisecond}, tasks, 0.95)
	require.Equal(t, want, cfg.LeastWait(0.95))
	cfg.Trace = trace(t, "steady", 1)
	require.Zero(t, cfg.LeastWait(0.95), "it is for bursts alone")
}
