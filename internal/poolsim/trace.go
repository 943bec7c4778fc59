package poolsim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Trace is the work that comes to a pool.
type Trace struct {
	Name  string
	About string // a sentence
	Jobs  []Job  // by when they come
}

// Job is one of it: a probe, and the tasks that it leads to.
type Job struct {
	At    time.Duration // from the beginning
	Probe time.Duration
	Tasks []Task
}

// Task is what one slot does.
type Task struct {
	Takes  time.Duration
	Weight float64 // as media.Plan estimates it: seconds of one core
	Audio  bool
}

// Work is the time of one slot that the trace takes, probes included.
func (t Trace) Work() time.Duration {
	var sum time.Duration
	for _, j := range t.Jobs {
		sum += j.Work()
	}
	return sum
}

// Work is the time of one slot that the job takes.
func (j Job) Work() time.Duration {
	sum := j.Probe
	for _, t := range j.Tasks {
		sum += t.Takes
	}
	return sum
}

// cores is how many a machine has: as Fly's performance-4x.
const cores = 4

// probeTakes is measured: a header over HTTP, and what a worker does around it.
const probeTakes = 500 * time.Millisecond

// Names are those of the traces that TraceOf knows.
func Names() []string {
	return []string{"burst", "burst-1000", "steady", "sparse", "clips", "daily", "long", "ladder"}
}

// TraceOf returns a trace by its name; false if there is none. The seed
// chooses when jobs come and what they take, whatever policy meets them.
func TraceOf(name string, seed uint64) (Trace, bool) {
	dice := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same seed has to give the same trace
	t := Trace{Name: name}
	switch name {
	case "burst":
		t.About, t.Jobs = "200 jobs of 60 s at once", burst(dice, 200, time.Minute)
	case "burst-1000":
		t.About, t.Jobs = "1,000 jobs of 60 s at once", burst(dice, 1000, time.Minute)
	case "steady":
		t.About = "a job of about 60 s every 20 s, for 2 hours"
		t.Jobs = arrivals(dice, 2*time.Hour, func(time.Duration) time.Duration { return 20 * time.Second })
	case "sparse":
		t.About = "a job of about 60 s every 10 min, for 12 hours"
		t.Jobs = arrivals(dice, 12*time.Hour, func(time.Duration) time.Duration { return 10 * time.Minute })
	case "clips":
		t.About, t.Jobs = "1 to 12 jobs of 3 to 10 s at once, every 2 min, for 2 hours", clips(dice)
	case "daily":
		t.About, t.Jobs = "a day: a job of about 60 s every 6 s at noon, every 10 min at night", arrivals(dice, 24*time.Hour, dayAndNight)
	case "long":
		t.About = "an hour of 1080p every 15 min, 8 times, in chunks"
		for i := range 8 {
			t.Jobs = append(t.Jobs, ladder(dice, time.Hour, time.Duration(i)*15*time.Minute))
		}
	case "ladder":
		t.About, t.Jobs = "one hour of 1080p, in chunks", []Job{ladder(dice, time.Hour, 0)}
	default:
		return Trace{}, false
	}
	return t, true
}

func burst(dice *rand.Rand, jobs int, takes time.Duration) []Job {
	list := make([]Job, jobs)
	for i := range list {
		list[i] = uncut(dice, 0, takes)
	}
	return list
}

// uncut is a job that is a probe and one encode. What its encode takes
// isn't what its plan guessed.
func uncut(dice *rand.Rand, at, takes time.Duration) Job {
	encode := takes - probeTakes
	guess := encode.Seconds() * cores * (0.7 + 0.6*dice.Float64())
	return Job{At: at, Probe: probeTakes, Tasks: []Task{{Takes: encode, Weight: guess}}}
}

// arrivals come at random, with a mean distance that depends on the time.
func arrivals(dice *rand.Rand, length time.Duration, every func(at time.Duration) time.Duration) []Job {
	var jobs []Job
	at := time.Duration(0)
	for {
		at += wholeMS(time.Duration(dice.ExpFloat64() * float64(every(at))))
		if at >= length {
			return jobs
		}
		// Many are short, few are long: 20 s to 4 min, 60 s in the mean.
		takes := min(4*time.Minute, 20*time.Second+time.Duration(dice.ExpFloat64()*float64(41*time.Second)))
		jobs = append(jobs, uncut(dice, at, wholeMS(takes)))
	}
}

// clips come in handfuls, as people upload them.
func clips(dice *rand.Rand) []Job {
	var jobs []Job
	for at := time.Duration(0); at < 2*time.Hour; {
		for range 1 + dice.IntN(12) {
			jobs = append(jobs, uncut(dice, at, 3*time.Second+wholeMS(time.Duration(dice.Float64()*float64(7*time.Second)))))
		}
		at += wholeMS(time.Duration(dice.ExpFloat64() * float64(2*time.Minute)))
	}
	return jobs
}

// dayAndNight is the distance of jobs over a day that begins at midnight.
func dayAndNight(at time.Duration) time.Duration {
	const night, noon = 1.0 / 600, 1.0 / 6 // jobs a second
	light := (1 - math.Cos(2*math.Pi*at.Hours()/24)) / 2
	return time.Duration(float64(time.Second) / (night + (noon-night)*light*light))
}

// wholeMS is a duration as stores keep it.
func wholeMS(d time.Duration) time.Duration { return d.Truncate(time.Millisecond) }
