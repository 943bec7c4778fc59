package ffmpeg

import (
	"encoding/binary"
	"math"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// ends tells where streams end by the index of the file alone. ok is false
// unless that is beyond doubt for all of them: the index has each sample that
// ffprobe counted, ends about where ffprobe says, and all bytes are within the
// file.
func (m movie) ends(h *header, info *tcoderv1.ProbeResult) (found ends, ok bool) {
	found = ends{}

	for _, s := range info.GetStreams() {
		if !isMedia(s) {
			continue
		}

		if int(s.GetIndex()) >= len(m.tracks) || s.GetFrameCount() == 0 {
			return nil, false
		}

		track := m.tracks[s.GetIndex()]
		if track.frames != s.GetFrameCount() || track.descriptions != 1 {
			return nil, false
		}

		at, shown := track.end(m.timescale)
		until, whole := track.bytesEnd()

		promised, exact := h.promise(info, s)
		if !shown || !whole || until > info.GetSizeBytes() || !exact || (at-promised).Abs() > tolerance {
			return nil, false
		}

		found[s.GetIndex()] = end{at: at, packets: int(track.frames)}
	}

	return found, len(found) > 0
}

// end is when the last of the track's samples has been shown, on the
// container's clock; ok is false where not every sample's end is shown.
func (t *indexTrack) end(movieScale uint64) (at time.Duration, ok bool) {
	from, until, ok := t.shown(movieScale)
	if !ok {
		return 0, false
	}

	shown, ok := t.timesShown()
	if !ok || len(shown) == 0 {
		return 0, false
	}

	last, n := int64(math.MinInt64), 0

	for pairs := t.times; len(pairs) >= 8; pairs = pairs[8:] {
		duration := int64(binary.BigEndian.Uint32(pairs[4:]))

		for range binary.BigEndian.Uint32(pairs) {
			last = max(last, shown[n]+duration)
			n++
		}
	}

	seconds := float64(last-from) / float64(t.timescale)
	if last > until || seconds < 0 || seconds > maxDuration.Seconds() {
		return 0, false
	}

	return time.Duration(math.Round(seconds*1e6)) * time.Microsecond, true
}

// bytesEnd is the place in the file behind all samples of the track; ok is
// false if the index doesn't say where each is.
func (t *indexTrack) bytesEnd() (until uint64, ok bool) {
	if t.offsetBytes == 0 || t.frames > maxSamples || t.size == 0 && uint64(len(t.sizes)/4) != t.frames {
		return 0, false
	}

	var sample, perChunk uint64

	chunks := t.chunks

	for number := uint64(1); len(t.offsets) >= int(number)*t.offsetBytes; number++ {
		if len(chunks) >= 12 && uint64(binary.BigEndian.Uint32(chunks)) == number {
			perChunk, chunks = uint64(binary.BigEndian.Uint32(chunks[4:])), chunks[12:]
		}

		if sample+perChunk > t.frames {
			return 0, false
		}

		at := t.offset(int(number - 1))
		if at > math.MaxInt64 {
			return 0, false
		}

		until = max(until, at+t.bytes(sample, perChunk))
		sample += perChunk
	}

	return until, sample == t.frames
}

// offset is where a chunk, counted from 0, begins.
func (t *indexTrack) offset(chunk int) uint64 {
	raw := t.offsets[chunk*t.offsetBytes:]
	if t.offsetBytes == 4 {
		return uint64(binary.BigEndian.Uint32(raw))
	}

	return binary.BigEndian.Uint64(raw)
}

// bytes is how many n samples from a first one take.
func (t *indexTrack) bytes(first, n uint64) (sum uint64) {
	if t.size > 0 {
		return n * uint64(t.size)
	}

	for i := first; i < first+n; i++ {
		sum += uint64(binary.BigEndian.Uint32(t.sizes[4*i:]))
	}

	return sum
}
