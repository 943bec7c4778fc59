package ffmpeg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

const (
	// maxIndexBytes bounds the index of a source that is looked at: that of about
	// ten hours.
	maxIndexBytes = 16 << 20
	// maxTopBoxes bounds how many boxes of a file are passed to find its index.
	maxTopBoxes = 64
	// maxKeyframes is how many a plan can take: two hours at 2 s.
	maxKeyframes = 4096
)

var errNoIndex = errors.New("the source has no index that can be used")

// readTables asks the index of an MP4 where its pictures can be cut, and
// whether its sound is played whole, and tells both in the streams of result.
// It is for saving work: what can't be read, or is not as it should be, stays
// unknown.
func readTables(ctx context.Context, source Source, result *tcoderv1.ProbeResult) {
	if !isOne(result.GetFormat(), []string{"mov"}) || !strings.HasPrefix(source.URL, "http") {
		return
	}

	index, err := readMovieBox(ctx, source)
	if err != nil {
		return
	}

	movie, err := parseMovie(index)
	if err != nil {
		return
	}

	movie.tell(result)
}

// tell tells of the tracks what the index says, where it agrees with ffprobe.
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

// readMovieBox finds the index of a file and reads it.
func readMovieBox(ctx context.Context, source Source) ([]byte, error) {
	const headBytes = 16

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	for at, n := int64(0), 0; n < maxTopBoxes && at+8 <= source.SizeBytes; n++ {
		head, err := readRange(ctx, client, source, at, min(headBytes, source.SizeBytes-at))
		if err != nil {
			return nil, err
		}

		name, start, size, ok := boxHead(head, source.SizeBytes-at)

		switch {
		case !ok || size > source.SizeBytes-at:
			return nil, errNoIndex
		case name == "moov" && size <= maxIndexBytes:
			return readRange(ctx, client, source, at+start, size-start)
		case name == "moov":
			return nil, errNoIndex
		}

		at += size
	}

	return nil, errNoIndex
}

func readRange(ctx context.Context, client *http.Client, source Source, from, n int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source.URL, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}

	request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+n-1))

	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // only read

	if response.StatusCode != http.StatusPartialContent {
		return nil, errNoIndex
	}

	data := make([]byte, n)
	if _, err := io.ReadFull(response.Body, data); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}

	return data, nil
}

// boxHead reads the head of a box: its name, where its content starts and how
// long it is as a whole. left is what there is from its start on.
func boxHead(data []byte, left int64) (name string, start, size int64, ok bool) {
	const short, long = 8, 16

	if len(data) < short {
		return "", 0, 0, false
	}

	start, size, name = short, int64(binary.BigEndian.Uint32(data)), string(data[4:short])

	switch {
	case size == 0:
		size = left
	case size == 1 && len(data) >= long:
		wide := binary.BigEndian.Uint64(data[short:])
		if wide > math.MaxInt64 {
			return "", 0, 0, false
		}

		start, size = long, int64(wide)
	}

	return name, start, size, size >= start
}

// movie is the index of a file.
type movie struct {
	timescale uint64
	tracks    []indexTrack
}

// indexTrack is what the index says of one track. The slices are parts of it.
type indexTrack struct {
	handler      string
	timescale    uint64
	descriptions uint32
	frames       uint64
	times        []byte // stts: pairs of a count and a duration
	shifts       []byte // ctts: pairs of a count and a shift; none: shown as decoded
	syncs        []byte // stss: numbers from 1
	hasSyncs     bool   // else every sample is a keyframe
	edits        []edit
}

// edit is an entry of an edit list.
type edit struct {
	duration  uint64 // in the movie's units; 0: to the end
	mediaTime int64  // in the track's; below 0: nothing is shown
	rate      uint32
}

// parseMovie parses the content of a moov box.
func parseMovie(data []byte) (movie, error) {
	var found movie

	err := eachBox(data, func(name string, content []byte) error {
		switch name {
		case "mvhd":
			found.timescale = timescaleOf(content)
		case "trak":
			var track indexTrack
			if err := track.parse(content); err != nil {
				return err
			}

			found.tracks = append(found.tracks, track)
		}

		return nil
	})
	if err == nil && found.timescale == 0 {
		err = errNoIndex
	}

	return found, err
}

func eachBox(data []byte, f func(name string, content []byte) error) error {
	for len(data) >= 8 {
		name, start, size, ok := boxHead(data, int64(len(data)))
		if !ok || size > int64(len(data)) {
			return errNoIndex
		}

		if err := f(name, data[start:size]); err != nil {
			return err
		}

		data = data[size:]
	}

	return nil
}

// timescaleOf reads an mvhd or mdhd box; 0 if it can't be.
func timescaleOf(content []byte) uint64 {
	at := 12
	if len(content) > 0 && content[0] == 1 {
		at = 20
	}

	if len(content) < at+4 {
		return 0
	}

	return uint64(binary.BigEndian.Uint32(content[at:]))
}

// parse takes in a trak box, and the boxes in it that hold others.
func (t *indexTrack) parse(content []byte) error {
	return eachBox(content, func(name string, content []byte) error {
		switch name {
		case "mdia", "minf", "stbl", "edts":
			return t.parse(content)
		case "mdhd":
			t.timescale = timescaleOf(content)
		case "hdlr":
			if len(content) >= 12 && t.handler == "" {
				t.handler = string(content[8:12])
			}
		case "elst":
			return t.parseEdits(content)
		case "stsd":
			if len(content) < 8 {
				return errNoIndex
			}

			t.descriptions = binary.BigEndian.Uint32(content[4:])
		case "stts":
			return table(content, 8, &t.times)
		case "ctts":
			return table(content, 8, &t.shifts)
		case "stss":
			t.hasSyncs = true

			return table(content, 4, &t.syncs)
		case "stsz", "stz2":
			if len(content) < 12 {
				return errNoIndex
			}

			t.frames = uint64(binary.BigEndian.Uint32(content[8:]))
		}

		return nil
	})
}

// table cuts the entries out of a box that counts them.
func table(content []byte, width int, into *[]byte) error {
	const head = 8

	if len(content) < head {
		return errNoIndex
	}

	n := uint64(binary.BigEndian.Uint32(content[4:]))
	if n*uint64(width) > uint64(len(content)-head) {
		return errNoIndex
	}

	*into = content[head : head+int(n)*width]

	return nil
}

func (t *indexTrack) parseEdits(content []byte) error {
	const most = 16

	var entries []byte

	width := 12
	if len(content) > 0 && content[0] == 1 {
		width = 20
	}

	if err := table(content, width, &entries); err != nil {
		return err
	}

	if len(entries) > most*width {
		return errNoIndex
	}

	for ; len(entries) > 0; entries = entries[width:] {
		e := edit{rate: binary.BigEndian.Uint32(entries[width-4:])}
		if width == 12 {
			e.duration, e.mediaTime = uint64(binary.BigEndian.Uint32(entries)), int64(int32(binary.BigEndian.Uint32(entries[4:])))
		} else {
			e.duration, e.mediaTime = binary.BigEndian.Uint64(entries), int64(binary.BigEndian.Uint64(entries[8:]))
		}

		t.edits = append(t.edits, e)
	}

	return nil
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

	table := &tcoderv1.KeyframeTable{Frames: starts, Timescale: uint32(t.timescale), FrameCount: t.frames, FrameRate: rate}
	for _, start := range starts {
		table.Ticks = append(table.Ticks, uint64(shown[start]-first))
	}

	return table
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
	// Each takes 8 bytes in memory: a film of ten hours.
	const most = 2_500_000
	if t.frames > most || counted(t.times) != t.frames || len(t.shifts) > 0 && counted(t.shifts) != t.frames {
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
