package poolsim

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The chart's measures, in pixels.
const (
	chartWidth  = 960
	chartHeight = 560
	plotLeft    = 64
	plotRight   = 936
	waitTop     = 112
	waitBottom  = 252
	poolTop     = 304
	poolBottom  = 504
	// Where much happens a column is wider: what changes within one is smoothed.
	wideColumn = 4
	many       = 4000 // points
)

// The chart's colours.
const (
	waitColour   = "#b4472e"
	busyColour   = "#2866ab"
	idleColour   = "#9dc3e6"
	comingColour = "#f0b23d"
	keptColour   = "#9ca3af"
)

const chartStyle = `text{font:13px system-ui,sans-serif;fill:#1f2937}.title{font-size:18px;font-weight:600}` +
	`.note{fill:#4b5563}.axis{fill:#4b5563;font-size:12px}.grid{stroke:#e5e7eb}.base{stroke:#6b7280}`

// SVG draws the pool over time: what waits, and the machines by what they do.
func (o Outcome) SVG() []byte {
	c := &chart{end: o.end(), column: 1}
	if len(o.Points) > many {
		c.column = wideColumn
	}
	c.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`,
		chartWidth, chartHeight, html.EscapeString("The pool over time: "+o.About))
	c.printf(`<style>%s</style><rect width="100%%" height="100%%" fill="#fff"/>`, chartStyle)
	c.text(plotLeft, 30, "title", o.About)
	c.text(plotLeft, 52, "note", fmt.Sprintf("Limit %d machines. Half of the jobs wait at most %s, 95 %% at most %s.",
		o.Limit, people(o.Wait.P50), people(o.Wait.P95)))
	c.text(plotLeft, 72, "note", fmt.Sprintf("Machine time: %s used, of which %s idle before a stop; %s needed.",
		people(o.Used), people(o.Tail), people(o.Needed)))

	waiting := func(p Point) float64 { return float64(p.Waiting) }
	busy := func(p Point) float64 { return float64(p.Busy) }
	idle := func(p Point) float64 { return busy(p) + float64(p.Idle) }
	coming := func(p Point) float64 { return idle(p) + float64(p.Coming) }
	kept := func(p Point) float64 { return float64(p.Stopped) }
	mostMachines := float64(o.Limit)
	for _, p := range o.Points {
		mostMachines = math.Max(mostMachines, coming(p))
	}

	c.frame(waitTop, waitBottom, math.Max(1, slices.Max(c.steps(o.Points, waiting))), "tasks that wait")
	c.area(o.Points, waiting, waitTop, waitBottom, waitColour)
	c.frame(poolTop, poolBottom, mostMachines*1.05, "machines")
	c.area(o.Points, coming, poolTop, poolBottom, comingColour)
	c.area(o.Points, idle, poolTop, poolBottom, idleColour)
	c.area(o.Points, busy, poolTop, poolBottom, busyColour)
	c.line(o.Points, kept, poolTop, poolBottom, keptColour)
	limit := c.y(float64(o.Limit), poolTop, poolBottom)
	c.printf(`<path d="M%d %.1fH%d" stroke="#1f2937" stroke-dasharray="6 4"/>`, plotLeft, limit, plotRight)
	c.legend(poolTop-14, []entry{
		{busyColour, "busy", false},
		{idleColour, "idle", false},
		{comingColour, "starting or stopping", false},
		{keptColour, "stopped, kept", true},
		{"#1f2937", "limit", true},
	})
	c.times()
	c.printf(`</svg>` + "\n")
	return []byte(c.out.String())
}

// end is when the last machine has stopped and nothing waits any more.
func (o Outcome) end() time.Duration {
	end := time.Second
	for i, p := range o.Points {
		if p.Waiting+p.Busy+p.Idle+p.Coming > 0 && i+1 < len(o.Points) {
			end = max(end, o.Points[i+1].At)
		}
	}
	return end + end/50
}

type chart struct {
	out    strings.Builder
	end    time.Duration
	column int     // pixels
	top    float64 // the value at the top of the panel that is drawn
}

func (c *chart) printf(format string, args ...any) { fmt.Fprintf(&c.out, format, args...) }

func (c *chart) text(x, y int, class, text string) {
	c.printf(`<text x="%d" y="%d" class="%s">%s</text>`, x, y, class, html.EscapeString(text))
}

func (c *chart) x(at time.Duration) float64 {
	return plotLeft + (plotRight-plotLeft)*at.Seconds()/c.end.Seconds()
}

func (c *chart) y(value float64, top, bottom int) float64 {
	return float64(bottom) - float64(bottom-top)*value/c.top
}

// frame begins a panel: its axis, its lines, and what it shows.
func (c *chart) frame(top, bottom int, most float64, title string) {
	c.top = most
	c.text(plotLeft, top-14, "", title)
	step := niceStep(most, 4)
	for value := 0.0; value <= most; value += step {
		y := c.y(value, top, bottom)
		class := "grid"
		if value == 0 {
			class = "base"
		}
		c.printf(`<path d="M%d %.1fH%d" class="%s"/>`, plotLeft, y, plotRight, class)
		c.printf(`<text x="%d" y="%.1f" class="axis" text-anchor="end">%s</text>`,
			plotLeft-8, y+4, strconv.FormatFloat(value, 'f', -1, 64))
	}
}

// niceStep is 1, 2 or 5 times a power of ten, at least 1, that fits into most a
// few times.
func niceStep(most float64, times int) float64 {
	step := math.Pow(10, math.Floor(math.Log10(math.Max(1, most/float64(times)))))
	for _, factor := range []float64{1, 2, 5} {
		if most/(step*factor) <= float64(times)*1.5 {
			return step * factor
		}
	}
	return step * 10
}

// steps are the values of a figure in each column, the mean where it changes
// within one.
func (c *chart) steps(points []Point, of func(Point) float64) []float64 {
	columns := make([]float64, (plotRight-plotLeft)/c.column)
	width := c.end / time.Duration(len(columns))
	at := 0
	for i := range columns {
		from, to := time.Duration(i)*width, time.Duration(i+1)*width
		for at+1 < len(points) && points[at+1].At <= from {
			at++
		}
		var sum float64
		for k := at; k < len(points) && points[k].At < to; k++ {
			end := to
			if k+1 < len(points) {
				end = min(to, points[k+1].At)
			}
			sum += of(points[k]) * (end - max(from, points[k].At)).Seconds()
		}
		columns[i] = sum / width.Seconds()
	}
	return columns
}

// path goes along the steps.
func (c *chart) path(points []Point, of func(Point) float64, top, bottom int) string {
	var path strings.Builder
	last := math.Inf(-1)
	for i, value := range c.steps(points, of) {
		if math.Abs(value-last)*float64(bottom-top)/c.top < 0.1 {
			continue
		}
		if i == 0 {
			fmt.Fprintf(&path, "M%d %.1f", plotLeft, c.y(value, top, bottom))
		} else {
			fmt.Fprintf(&path, "H%dV%.1f", plotLeft+i*c.column, c.y(value, top, bottom))
		}
		last = value
	}
	fmt.Fprintf(&path, "H%d", plotRight)
	return path.String()
}

func (c *chart) area(points []Point, of func(Point) float64, top, bottom int, colour string) {
	c.printf(`<path d="%sV%dH%dZ" fill="%s"/>`, c.path(points, of, top, bottom), bottom, plotLeft, colour)
}

func (c *chart) line(points []Point, of func(Point) float64, top, bottom int, colour string) {
	c.printf(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5" stroke-dasharray="2 3"/>`, c.path(points, of, top, bottom), colour)
}

// entry is one of a legend.
type entry struct {
	colour, text string
	line         bool
}

// legend stands to the right, above a panel.
func (c *chart) legend(y int, entries []entry) {
	x := plotRight
	for _, e := range slices.Backward(entries) {
		x -= 34 + 7*len(e.text)
		if e.line {
			c.printf(`<path d="M%d %dh14" stroke="%s" stroke-width="1.5" stroke-dasharray="3 3"/>`, x, y-4, e.colour)
		} else {
			c.printf(`<rect x="%d" y="%d" width="14" height="10" fill="%s"/>`, x, y-9, e.colour)
		}
		c.text(x+20, y, "axis", e.text)
	}
}

// times is the axis that both panels share.
func (c *chart) times() {
	step := 24 * time.Hour
	for _, nice := range []time.Duration{
		time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
		30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour,
	} {
		if c.end/nice <= 10 {
			step = nice
			break
		}
	}
	for at := time.Duration(0); at <= c.end; at += step {
		x := c.x(at)
		for _, bottom := range []int{waitBottom, poolBottom} {
			c.printf(`<path d="M%.1f %dv5" class="base"/>`, x, bottom)
		}
		c.printf(`<text x="%.1f" y="%d" class="axis" text-anchor="middle">%s</text>`, x, poolBottom+20, people(at))
	}
	c.printf(`<text x="%d" y="%d" class="axis" text-anchor="middle">time since the beginning</text>`, (plotLeft+plotRight)/2, poolBottom+44)
}

// people is a duration as people write it.
func people(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Round(time.Second).Seconds())) + " s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return joined(int(d/time.Minute), "min", int(d%time.Minute/time.Second), "s")
	default:
		d = d.Round(time.Minute)
		return joined(int(d/time.Hour), "h", int(d%time.Hour/time.Minute), "min")
	}
}

func joined(big int, unit string, small int, smallUnit string) string {
	text := strconv.Itoa(big) + " " + unit
	if small > 0 {
		text += " " + strconv.Itoa(small) + " " + smallUnit
	}
	return text
}
