package ffmpeg

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// maxKeyframes is how many a plan can take: two hours at 2 s.
const maxKeyframes = 4096

// maxSamples is how many samples of a track are looked at. The time of each
// takes 8 bytes in memory: a film of ten hours.
const maxSamples = 2_500_000

// readIndex reads the index of a source if it is an MP4; empty where there is
// none that can be used. It is for saving work: what it doesn't tell stays
// unknown.
func readIndex(ctx context.Context, source Source) movie {
	if !strings.HasPrefix(source.URL, "http") {
		return movie{}
	}

	index, err := readMovieBox(ctx, source)
	if err != nil {
		return movie{}
	}

	found, err := parseMovie(index)
	if err != nil {
		return movie{}
	}

	return found
}

// tell tells in the streams of result where their pictures can be cut, that
// those are of constant cadence, and whether their sound is played whole, where
// the index agrees with ffprobe.
func (m movie) tell(result *tcoderv1.ProbeResult) {
	for _, stream := range result.GetStreams() {
		if int(stream.GetIndex()) >= len(m.tracks) {
			continue // a picture that the file carries beside its tracks
		}

		track := m.tracks[stream.GetIndex()]

		switch {
		case track.frames == 0 || stream.GetFrameCount() != track.frames:
		case track.handler == "vide" && stream.GetKind() == tcoderv1.StreamKind_STREAM_KIND_VIDEO:
			stream.Keyframes = track.keyframes(m.timescale)
			stream.Steady = stream.GetKeyframes() != nil
			result.MaxGop = longest(result.GetMaxGop(), stream.GetKeyframes())
		case track.handler == "soun" && stream.GetKind() == tcoderv1.StreamKind_STREAM_KIND_AUDIO:
			stream.Untrimmed = track.untrimmed(m.timescale)
		}
	}
}

// longest is the longest distance between keyframes that is known.
func longest(gop *durationpb.Duration, k *tcoderv1.KeyframeTable) *durationpb.Duration {
	if k == nil {
		return gop
	}

	var most uint64

	for i, first := range k.GetFrames() {
		end := k.GetFrameCount()
		if i+1 < len(k.GetFrames()) {
			end = k.GetFrames()[i+1]
		}

		most = max(most, end-first)
	}

	seconds := float64(most) * float64(k.GetFrameRate().GetDen()) / float64(k.GetFrameRate().GetNum())

	return durationpb.New(max(gop.AsDuration(), time.Duration(seconds*float64(time.Second))))
}

// shown is the range of the track's own time that is played; ok is false for
// edits that do more than cut one range out.
func (t *indexTrack) shown(movieScale uint64) (from, until int64, ok bool) {
	const once = 1 << 16

	switch {
	case t.timescale == 0 || len(t.edits) > 1:
		return 0, 0, false
	case len(t.edits) == 0:
		return 0, math.MaxInt64, true
	}

	e := t.edits[0]
	if e.mediaTime < 0 || e.rate != once {
		return 0, 0, false
	}

	if e.duration == 0 {
		return e.mediaTime, math.MaxInt64, true
	}

	// One unit more: durations are rounded.
	ticks := float64(e.duration+1) * float64(t.timescale) / float64(movieScale)
	if ticks > math.MaxInt64/2 || e.mediaTime > math.MaxInt64/2 {
		return e.mediaTime, math.MaxInt64, true
	}

	return e.mediaTime, e.mediaTime + int64(ticks), true
}

// untrimmed reports whether all of the track is played but an encoder's
// priming.
func (t *indexTrack) untrimmed(movieScale uint64) bool {
	const priming = 10 // per second: 100 ms

	from, until, ok := t.shown(movieScale)

	var end int64
	for pairs := t.times; len(pairs) >= 8; pairs = pairs[8:] {
		end += int64(binary.BigEndian.Uint32(pairs)) * int64(binary.BigEndian.Uint32(pairs[4:]))
		if end < 0 || end > math.MaxInt64/4 {
			return false
		}
	}

	slack := int64(t.timescale / priming)

	return ok && t.descriptions == 1 && from <= slack && until >= end-slack
}

// keyframes makes the table of a video track; nil unless it consists of
// closed groups of pictures at a constant cadence, every one of them shown.
func (t *indexTrack) keyframes(movieScale uint64) *tcoderv1.KeyframeTable {
	from, until, ok := t.shown(movieScale)
	if !ok || t.descriptions != 1 || t.frames < 2 {
		return nil
	}

	starts, ok := t.syncPlaces()
	if !ok {
		return nil
	}

	shown, ok := t.timesShown()
	if !ok {
		return nil
	}

	// Groups are closed: none shows a picture before its keyframe, or after the
	// next one.
	for i, start := range starts {
		end := t.frames
		if i+1 < len(starts) {
			end = starts[i+1]
		}

		group := shown[start:end]
		key := group[0]
		slices.Sort(group)

		if group[0] != key || start > 0 && shown[start-1] >= key {
			return nil
		}
	}

	first, last := shown[0], shown[t.frames-1]
	if first < from || last >= until || last <= first {
		return nil
	}

	rate := reduced((t.frames-1)*t.timescale, uint64(last-first))
	if rate == nil || !steady(shown, t.timescale) {
		return nil
	}

	table := &tcoderv1.KeyframeTable{
		Frames: starts, Timescale: uint32(t.timescale), FrameCount: t.frames, FrameRate: rate, LeadTicks: t.lead(),
	}
	for _, start := range starts {
		table.Ticks = append(table.Ticks, uint64(shown[start]-first))
	}

	return table
}

// lead is by how much a sample is decoded before it is shown, at most, wherever
// a reader puts the time at which the first is decoded.
func (t *indexTrack) lead() uint64 {
	var least, most int64

	for pairs := t.shifts; len(pairs) >= 8; pairs = pairs[8:] {
		shift := int64(int32(binary.BigEndian.Uint32(pairs[4:])))
		least, most = min(least, shift), max(most, shift)
	}

	return uint64(most - least)
}

// syncPlaces are the places of the keyframes among the samples, the first of
// which must be one.
func (t *indexTrack) syncPlaces() ([]uint64, bool) {
	if !t.hasSyncs || len(t.syncs) == 0 || len(t.syncs)/4 > maxKeyframes {
		return nil, false
	}

	places := make([]uint64, 0, len(t.syncs)/4)

	for numbers := t.syncs; len(numbers) >= 4; numbers = numbers[4:] {
		number := uint64(binary.BigEndian.Uint32(numbers))
		if number == 0 || number > t.frames || len(places) > 0 && number-1 <= places[len(places)-1] {
			return nil, false
		}

		places = append(places, number-1)
	}

	return places, places[0] == 0
}

// timesShown is when each sample is shown, in the order of decoding.
func (t *indexTrack) timesShown() ([]int64, bool) {
	if t.frames > maxSamples || counted(t.times) != t.frames || len(t.shifts) > 0 && counted(t.shifts) != t.frames {
		return nil, false
	}

	at := make([]int64, 0, t.frames)

	var clock int64

	for pairs := t.times; len(pairs) >= 8; pairs = pairs[8:] {
		duration := int64(binary.BigEndian.Uint32(pairs[4:]))

		for range binary.BigEndian.Uint32(pairs) {
			at = append(at, clock)
			clock += duration
		}
	}

	n := 0

	for pairs := t.shifts; len(pairs) >= 8; pairs = pairs[8:] {
		shift := int64(int32(binary.BigEndian.Uint32(pairs[4:])))

		for range binary.BigEndian.Uint32(pairs) {
			at[n] += shift
			n++
		}
	}

	return at, true
}

// counted is how many samples the pairs of a table are about.
func counted(pairs []byte) (n uint64) {
	for ; len(pairs) >= 8; pairs = pairs[8:] {
		n += uint64(binary.BigEndian.Uint32(pairs))
	}

	return n
}

// steady reports whether pictures, in the order they are shown, are within a
// millisecond of a constant cadence.
func steady(shown []int64, timescale uint64) bool {
	const perSecond = 1000

	first, last := float64(shown[0]), float64(shown[len(shown)-1])
	step := (last - first) / float64(len(shown)-1)

	for i, at := range shown {
		if math.Abs(float64(at)-first-float64(i)*step)*perSecond > float64(timescale) {
			return false
		}
	}

	return true
}
