package ffmpeg

import (
	"bytes"
	"strconv"
	"time"
)

// Progress is how far FFmpeg is.
type Progress struct {
	// OutTime is the media time written.
	OutTime time.Duration
	// Fraction is OutTime's share of the planned duration, 0 to 1; 0 if the
	// duration is unknown.
	Fraction float64
	// Frame is the number of frames of the first video rendition.
	Frame int64
	// FPS is frames per second, Speed media seconds per second, both since the
	// start.
	FPS, Speed float64
}

// tell hands on what was written so far of a result that is to last total, 0
// if that isn't known.
func (p Progress) tell(onProgress func(Progress), total time.Duration, end bool) {
	if onProgress == nil {
		return
	}

	if total > 0 {
		p.Fraction = min(1, p.OutTime.Seconds()/total.Seconds())
	}

	if end {
		p.Fraction = 1
	}

	onProgress(p)
}

// maxProgressLine bounds a line of -progress; a longer one is dropped.
const maxProgressLine = 256

// progressParser reads what FFmpeg writes with -progress: lines of key=value
// in blocks that end with progress=continue or progress=end. What it doesn't
// understand it ignores.
type progressParser struct {
	lines

	onBlock func(p Progress, end bool)
	now     Progress
}

// Write takes any piece of the output.
func (p *progressParser) Write(data []byte) (int, error) {
	p.split(data, maxProgressLine, p.take)

	return len(data), nil
}

func (p *progressParser) take(line []byte) {
	key, raw, _ := bytes.Cut(bytes.TrimSpace(line), []byte{'='})
	value := string(bytes.TrimSpace(raw))

	switch string(key) {
	case "out_time_us":
		// Before the first packet it is N/A or the smallest integer.
		if us, err := strconv.ParseInt(value, 10, 64); err == nil && us >= 0 && us < int64(maxDuration/time.Microsecond) {
			p.now.OutTime = time.Duration(us) * time.Microsecond
		}
	case "frame":
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			p.now.Frame = n
		}
	case "fps":
		p.now.FPS = positive(value, p.now.FPS)
	case "speed":
		p.now.Speed = positive(string(bytes.TrimSuffix([]byte(value), []byte{'x'})), p.now.Speed)
	case "progress":
		p.onBlock(p.now, value == "end")
	}
}

// positive parses a finite number of at least 0, or keeps the old value.
func positive(text string, old float64) float64 {
	const absurd = 1e9
	if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f < absurd {
		return f
	}

	return old
}
