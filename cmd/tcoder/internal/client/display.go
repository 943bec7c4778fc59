package client

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

const (
	redrawEvery = 100 * time.Millisecond
	// Without a terminal, lines of progress are at least this far apart.
	linesEvery = time.Second
	// Without a terminal, progress is told in steps of this share.
	stepPercent  = 10
	defaultWidth = 80
	barWidth     = 24
)

// display tells how far things are: on a terminal by one line that is drawn
// over and over, otherwise by a line per change. Its methods are called from
// one goroutine at a time.
type display struct {
	out      io.Writer
	terminal bool
	width    func() int
	now      func() time.Time

	drawnAt  time.Time
	drawn    bool   // a line is on the terminal that isn't ended
	lastStep string // the last line of progress told without a terminal
}

func newDisplay(out io.Writer) *display {
	d := &display{out: out, now: time.Now, width: func() int { return defaultWidth }}
	file, ok := out.(*os.File)
	if !ok {
		return d
	}
	fd := int(file.Fd())
	d.terminal = term.IsTerminal(fd)
	d.width = func() int {
		width, _, err := term.GetSize(fd)
		if err != nil || width <= 0 {
			return defaultWidth
		}

		return width
	}

	return d
}

// linef tells a change, above what is drawn.
func (d *display) linef(format string, args ...any) {
	d.clear()
	fmt.Fprintf(d.out, format+"\n", args...)
}

// clear takes the drawn line away.
func (d *display) clear() {
	if d.drawn {
		fmt.Fprint(d.out, "\r\x1b[K")
		d.drawn = false
	}
}

// progress tells how far something is. step is what a line without a terminal
// is written for: once per value.
func (d *display) progress(label string, percent float64, facts []string, step string) {
	now := d.now()
	if !d.terminal {
		if step = label + " " + step; step != d.lastStep && now.Sub(d.drawnAt) >= linesEvery {
			d.lastStep, d.drawnAt = step, now
			d.linef("%s", strings.Join(append([]string{step}, facts...), ", "))
		}

		return
	}
	if now.Sub(d.drawnAt) < redrawEvery && percent < 100 {
		return
	}
	d.drawnAt, d.drawn = now, true
	filled := int(percent / 100 * barWidth)
	bar := strings.Repeat("█", filled) + strings.Repeat("░", barWidth-filled)
	head := fmt.Sprintf("%-11s %s %3.0f%%", label, bar, percent)
	if percent == 0 {
		head = label + " " + step
	}
	text := strings.Join(append([]string{head}, facts...), "  ")
	if runes, width := []rune(text), d.width(); len(runes) >= width {
		text = string(runes[:max(0, width-1)])
	}
	fmt.Fprintf(d.out, "\r%s\x1b[K", text)
}

// percentStep is the step that a share belongs to.
func percentStep(percent float64) string {
	return fmt.Sprintf("%d%%", int(percent)/stepPercent*stepPercent)
}

// transfer tells the progress of an upload or a download, with its speed over
// the last seconds and the time that is left.
type transfer struct {
	display *display
	label   string
	rate    float64 // bytes per second, smoothed
	atTime  time.Time
	atBytes int64
}

// rateEvery is how often the speed is measured; each measurement has this weight.
const (
	rateEvery  = 500 * time.Millisecond
	rateWeight = 0.3
)

func (t *transfer) update(done, total int64) {
	now := t.display.now()
	switch elapsed := now.Sub(t.atTime); {
	case t.atTime.IsZero():
		t.atTime, t.atBytes = now, done
	case elapsed >= rateEvery:
		rate := float64(done-t.atBytes) / elapsed.Seconds()
		if t.rate == 0 {
			t.rate = rate
		}
		t.rate += rateWeight * (rate - t.rate)
		t.atTime, t.atBytes = now, done
	}
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(done) / float64(total)
	}
	facts := []string{formatBytes(float64(done)) + " of " + formatBytes(float64(total))}
	if t.rate > 0 {
		left := time.Duration(float64(total-done) / t.rate * float64(time.Second))
		facts = append(facts, formatBytes(t.rate)+"/s", "eta "+formatClock(left))
	}
	t.display.progress(t.label, percent, facts, percentStep(percent))
}

// jobUpdate tells a change of a job.
func (d *display) jobUpdate(update tcoder.Update) {
	job, event := update.Job, update.Event
	if text := eventText(job, event); text != "" {
		d.linef("%s", text)
	}
	switch {
	case tcoder.IsFinal(job.GetState()):
		d.clear()
	case job.GetWaiting() != nil:
		label, text := waitText(job, d.now())
		d.progress(label, 0, nil, text)
	case job.GetProgress().GetPercent() == 0: // nothing to tell yet
	default:
		progress := job.GetProgress()
		var facts []string
		if speed := progress.GetSpeed(); speed > 0 {
			facts = append(facts, fmt.Sprintf("%.2fx", speed))
		}
		if fps := progress.GetFps(); fps > 0 {
			facts = append(facts, fmt.Sprintf("%.0f fps", fps))
		}
		if progress.GetEta() != nil {
			facts = append(facts, "eta "+formatClock(progress.GetEta().AsDuration()))
		}
		d.progress("transcoding", progress.GetPercent(), facts, percentStep(progress.GetPercent()))
	}
}

// eventText is an event as a line; empty for what needs none.
func eventText(job *tcoderv1.Job, event *tcoderv1.JobEvent) string {
	switch event.GetType() {
	case tcoderv1.JobEventType_JOB_EVENT_TYPE_STARTED:
		return "started"
	case tcoderv1.JobEventType_JOB_EVENT_TYPE_PLANNED:
		return "planned: " + planText(job.GetPlan())
	case tcoderv1.JobEventType_JOB_EVENT_TYPE_PLAYABLE:
		return "playable after " + formatDuration(job.GetTimeToPlayable())
	case tcoderv1.JobEventType_JOB_EVENT_TYPE_TASK_DELAYED:
		return "another try follows: " + failureText(event.GetFailure())
	case tcoderv1.JobEventType_JOB_EVENT_TYPE_RETRIED:
		return fmt.Sprintf("run %d", job.GetRun())
	default:
		return ""
	}
}

// planText is a plan in a few words, with what was left out of it.
func planText(plan *tcoderv1.Plan) string {
	var outputs []string
	for _, output := range plan.GetOutputs() {
		if output.GetIntermediate() {
			continue
		}
		var names []string
		for _, rendition := range output.GetVideo().GetRenditions() {
			text := rendition.GetName()
			if rendition.GetCopy() {
				text += " (copy)"
			}
			names = append(names, text)
		}
		if output.GetAudio() != nil && output.GetVideo() == nil {
			names = append(names, output.GetAudio().GetName())
		}
		outputs = append(outputs, output.GetName()+" "+strings.Join(names, " "))
	}
	return strings.Join(append([]string{strings.Join(outputs, "; ")}, plan.GetNotes()...), "\n  note: ")
}

func failureText(f *tcoderv1.Failure) string {
	return tcoder.ReasonName(f.GetReason()) + ": " + f.GetMessage()
}
