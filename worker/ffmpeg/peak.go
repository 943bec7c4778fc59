package ffmpeg

import (
	"fmt"
	"math"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
)

// peakBytes is the most that any second of a progressive file has, of all its
// tracks: seconds are counted from 0, and a sample belongs to the one in which
// its decoding begins. A rest of a second at the end counts as one, with what
// it has. It fails if the tables can't be those of a file of this size.
func peakBytes(tracks []track, size uint64) (uint64, error) {
	walks := make([]walk, 0, len(tracks))

	for _, t := range tracks {
		w := walk{times: t.table.Stts, sizes: t.table.Stsz, timescale: uint64(t.timescale)}
		if err := w.check(t.frames); err != nil {
			return 0, err
		}

		walks = append(walks, w)
	}

	var peak, total uint64

	for {
		second := uint64(math.MaxUint64)
		for i := range walks {
			second = min(second, walks[i].second())
		}

		if second > uint64(maxDuration/time.Second) {
			return peak, nil // none is left, or none that is believed
		}

		var bytes uint64
		for i := range walks {
			bytes += walks[i].take(second)
		}

		if total += bytes; total > size {
			return 0, fmt.Errorf("%w: samples of %d bytes in a file of %d", errResult, total, size)
		}

		peak = max(peak, bytes)
	}
}

// walk goes through the samples of a track in the order of decoding.
type walk struct {
	times     *mp4.SttsBox
	sizes     *mp4.StszBox
	timescale uint64

	run   int    // of samples that last equally long
	taken uint32 // of the run
	first uint32 // that isn't taken
	ticks uint64 // when its decoding begins
}

// check refuses tables that don't have the same samples.
func (w *walk) check(frames uint64) error {
	if w.times == nil || w.sizes == nil || frames != uint64(w.sizes.SampleNumber) {
		return fmt.Errorf("%w: %d samples have a time, but not as many a size", errResult, frames)
	}

	return nil
}

// second is that of the next sample; beyond all that there are if none is left.
func (w *walk) second() uint64 {
	if w.run == len(w.times.SampleCount) {
		return math.MaxUint64
	}

	return w.ticks / w.timescale
}

// take goes on to the end of a second, and returns the bytes up to there.
func (w *walk) take(second uint64) uint64 {
	var bytes uint64

	for end := (second + 1) * w.timescale; w.run < len(w.times.SampleCount) && w.ticks < end; {
		n, delta := w.times.SampleCount[w.run]-w.taken, uint64(w.times.SampleTimeDelta[w.run])
		if delta > 0 {
			n = uint32(min(uint64(n), (end-w.ticks+delta-1)/delta))
		}

		bytes += w.bytes(n)
		w.first += n
		w.ticks += uint64(n) * delta

		if w.taken += n; w.taken == w.times.SampleCount[w.run] {
			w.run, w.taken = w.run+1, 0
		}
	}

	return bytes
}

// bytes are those of the next n samples.
func (w *walk) bytes(n uint32) uint64 {
	if size := uint64(w.sizes.SampleUniformSize); size > 0 {
		return uint64(n) * size
	}

	var bytes uint64
	for _, size := range w.sizes.SampleSize[w.first : w.first+n] {
		bytes += uint64(size)
	}

	return bytes
}
