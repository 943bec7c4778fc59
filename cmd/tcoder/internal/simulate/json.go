package simulate

import (
	"time"

	"github.com/tcoder-dev/tcoder/internal/poolsim"
)

// document is a result as JSON. Times are in seconds.
type document struct {
	Trace  string `json:"trace"`
	About  string `json:"about"`
	Seed   uint64 `json:"seed"`
	Jobs   int    `json:"jobs"`
	Limit  int    `json:"limit"`
	Made   int    `json:"machines_made"`
	Starts int    `json:"machine_starts"`
	Most   int    `json:"machines_most"`
	Left   int    `json:"machines_running_after"`
	Lost   int    `json:"attempts_lost"`

	Wall     float64   `json:"wall_seconds"`
	Wait     quantiles `json:"wait_seconds"`
	Bound    float64   `json:"wait_p95_bound_seconds,omitempty"`
	Took     quantiles `json:"took_seconds"`
	Needed   float64   `json:"machine_seconds_needed"`
	Used     float64   `json:"machine_seconds_used"`
	Tail     float64   `json:"machine_seconds_idle_before_stop"`
	Kept     float64   `json:"machine_seconds_stopped"`
	Overhead float64   `json:"overhead"`
	Cost     float64   `json:"cost_usd"`
	Price    string    `json:"price_as_of"`
	Points   []point   `json:"points"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

// point is the pool from an instant on.
type point struct {
	At      float64 `json:"at_seconds"`
	Waiting int     `json:"tasks_waiting"`
	Coming  int     `json:"machines_coming"`
	Busy    int     `json:"machines_busy"`
	Idle    int     `json:"machines_idle"`
	Stopped int     `json:"machines_stopped"`
}

func documents(results []result) []document {
	list := make([]document, 0, len(results))
	for _, r := range results {
		d := document{
			Trace: r.Trace, About: r.About, Seed: r.Seed, Jobs: r.Jobs, Limit: r.Limit, Made: r.Made, Starts: r.Starts, Most: r.Most,
			Left: r.Running, Lost: r.Lost, Wall: rounded(r.Wall), Wait: quantilesOf(r.Wait), Bound: rounded(r.bound), Took: quantilesOf(r.Took),
			Needed: rounded(r.Needed), Used: rounded(r.Used), Tail: rounded(r.Tail), Kept: rounded(r.Kept),
			Overhead: r.Overhead(), Cost: r.Cost, Price: r.Price, Points: make([]point, 0, len(r.Points)),
		}
		for _, p := range r.Points {
			d.Points = append(d.Points, point{rounded(p.At), p.Waiting, p.Coming, p.Busy, p.Idle, p.Stopped})
		}
		list = append(list, d)
	}

	return list
}

func quantilesOf(s poolsim.Spread) quantiles {
	return quantiles{rounded(s.P50), rounded(s.P95), rounded(s.Max)}
}

// rounded is a duration in seconds, to the millisecond.
func rounded(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
