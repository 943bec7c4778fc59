package bound_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/poolsim/bound"
)

func minutes(n int) []time.Duration { return slices.Repeat([]time.Duration{time.Minute}, n) }

// TestBurstWait: cases that can be counted by hand.
func TestBurstWait(t *testing.T) {
	t.Parallel()
	fly := bound.Pool{Limit: 20, Slots: 1, PerSecond: 1, Burst: 3, Start: 5 * time.Second}
	free := bound.Pool{Limit: 2, Slots: 1, Start: 5 * time.Second}
	for name, test := range map[string]struct {
		pool  bound.Pool
		tasks []time.Duration
		share float64
		want  time.Duration
	}{
		"nothing waits for nothing":               {fly, nil, 0.95, 0},
		"one waits for one start":                 {fly, minutes(1), 1, 5 * time.Second},
		"three are made at once":                  {fly, minutes(3), 1, 5 * time.Second},
		"the fourth a second later":               {fly, minutes(4), 1, 6 * time.Second},
		"the 20th when all are there":             {fly, minutes(20), 1, 22 * time.Second},
		"the 21st when the first is free":         {fly, minutes(21), 1, 65 * time.Second},
		"the 190th in the tenth round":            {fly, minutes(200), 0.95, 9*time.Minute + 5*time.Second + 7*time.Second},
		"slots count":                             {bound.Pool{Limit: 1, Slots: 4, Start: time.Second}, minutes(5), 1, 61 * time.Second},
		"the short ones could have been first":    {free, []time.Duration{time.Hour, time.Hour, time.Second, time.Second}, 1, 6 * time.Second},
		"whatever is long has to start last":      {free, []time.Duration{time.Minute, time.Minute, time.Minute, time.Hour}, 1, 65 * time.Second},
		"half of the time doesn't make a task":    {free, minutes(5), 1, 125 * time.Second},
		"a pool that may have no machine says so": {bound.Pool{Slots: 1}, minutes(1), 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, bound.BurstWait(test.pool, test.tasks, test.share))
		})
	}
}

// TestNothingBeatsIt: machines that come and go as they like within the limits,
// and take any task at any moment, don't start more jobs sooner.
func TestNothingBeatsIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pool := bound.Pool{
			Limit: rapid.IntRange(1, 6).Draw(t, "limit"), Slots: rapid.IntRange(1, 3).Draw(t, "slots"),
			PerSecond: float64(rapid.IntRange(1, 8).Draw(t, "quarters per second")) / 4, Burst: rapid.IntRange(1, 3).Draw(t, "burst"),
			Start: seconds(t, 8, "start"),
		}
		tasks := make([]time.Duration, rapid.IntRange(1, 30).Draw(t, "tasks"))
		for i := range tasks {
			tasks[i] = time.Second + seconds(t, 30, "takes")
		}
		starts := anyPolicy(t, pool, rapid.Permutation(tasks).Draw(t, "order"))
		slices.Sort(starts)
		for _, share := range []float64{0.5, 0.95, 1} {
			rank := int(math.Ceil(share * float64(len(starts))))
			require.LessOrEqual(t, bound.BurstWait(pool, tasks, share), starts[rank-1], "the wait of %v", share)
		}
	})
}

func seconds(t *rapid.T, most int, name string) time.Duration {
	return time.Duration(rapid.IntRange(0, most*1000).Draw(t, name)) * time.Millisecond
}

// anyPolicy makes machines whenever it likes and the limits allow, ends them
// whenever it likes, and returns when the tasks were started.
func anyPolicy(t *rapid.T, pool bound.Pool, tasks []time.Duration) []time.Duration {
	type machine struct {
		created time.Duration
		slots   []time.Duration // when each is free
	}
	var machines []machine
	var starts []time.Duration
	tokens, filled := float64(pool.Burst), time.Duration(0)
	now := time.Duration(0)
	for len(tasks) > 0 {
		tokens = min(float64(pool.Burst), tokens+(now-filled).Seconds()*pool.PerSecond)
		filled = now
		for tokens >= 1 && len(machines) < pool.Limit && (len(machines) == 0 || rapid.IntRange(0, 3).Draw(t, "create") > 0) {
			tokens--
			m := machine{created: now}
			for range pool.Slots {
				m.slots = append(m.slots, now+pool.Start)
			}
			machines = append(machines, m)
		}
		for i := range machines {
			for k, free := range machines[i].slots {
				if free <= now && len(tasks) > 0 && rapid.IntRange(0, 7).Draw(t, "lazy") > 0 {
					starts = append(starts, now)
					machines[i].slots[k] = now + tasks[0]
					tasks = tasks[1:]
				}
			}
		}
		machines = slices.DeleteFunc(machines, func(m machine) bool {
			return slices.Max(m.slots) <= now && rapid.IntRange(0, 9).Draw(t, "destroy") == 0
		})
		// The next instant at which anything may be possible.
		next := now + time.Duration(float64(time.Second)/pool.PerSecond)
		for _, m := range machines {
			for _, free := range m.slots {
				if free > now {
					next = min(next, free)
				}
			}
		}
		now = next
	}
	return starts
}
