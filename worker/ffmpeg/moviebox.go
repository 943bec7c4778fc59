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
)

const (
	// maxIndexBytes bounds the index of a source that is looked at: that of about
	// ten hours.
	maxIndexBytes = 16 << 20
	// maxTopBoxes bounds how many boxes of a file are passed to find its index.
	maxTopBoxes = 64
)

var errNoIndex = errors.New("the source has no index that can be used")

// readMovieBox finds the index of a file and reads it.
func readMovieBox(ctx context.Context, source Source) ([]byte, error) {
	client := newRangeClient()
	index, start, size := int64(-1), int64(0), int64(0)

	err := eachTopBox(ctx, client, source, func(name string, at, contentAt, length int64) bool {
		if at == 0 && !startsMovie(name) {
			return false
		}

		if name == "moov" {
			index, start, size = at, contentAt, length
		}

		return name != "moov" && length <= source.SizeBytes-at
	})

	switch {
	case err != nil:
		return nil, err
	case index < 0 || size > source.SizeBytes-index || size > maxIndexBytes:
		return nil, errNoIndex
	}

	return readRange(ctx, client, source, index+start, size-start)
}

// startsMovie reports whether a file whose first box has a name is an MP4.
func startsMovie(name string) bool {
	return slices.Contains([]string{"ftyp", "styp", "moov", "mdat", "wide", "skip", "free", "pnot"}, name)
}

func newRangeClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// eachTopBox passes the boxes of a file, by name, place, the length of the head
// and the length as a whole, until f returns false.
func eachTopBox(ctx context.Context, client *http.Client, source Source, f func(name string, at, start, size int64) bool) error {
	const headBytes = 16

	for at, n := int64(0), 0; n < maxTopBoxes && at+8 <= source.SizeBytes; n++ {
		head, err := readRange(ctx, client, source, at, min(headBytes, source.SizeBytes-at))
		if err != nil {
			return err
		}

		name, start, size, ok := boxHead(head, source.SizeBytes-at)
		if !ok {
			return errNoIndex
		}

		if !f(name, at, start, size) {
			return nil
		}

		at += size
	}

	return nil
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

// movie is the index of a file. It is a stranger's, and read outside of the
// sandbox: of its boxes only those are looked at that are asked for, and tables
// stay as they are in it, so it takes no more memory than its own size.
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
	size         uint32 // stsz: of each sample; 0: see sizes
	sizes        []byte // stsz: of each sample
	chunks       []byte // stsc: first chunk, from 1, samples in each from there on, and a description
	offsets      []byte // stco, co64: where each chunk begins
	offsetBytes  int    // of an offset: 4 or 8
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
			if name == "stz2" {
				return nil
			}

			if t.size = binary.BigEndian.Uint32(content[4:]); t.size == 0 {
				return table(content[4:], 4, &t.sizes)
			}
		case "stsc":
			return table(content, 12, &t.chunks)
		case "stco":
			t.offsetBytes = 4

			return table(content, t.offsetBytes, &t.offsets)
		case "co64":
			t.offsetBytes = 8

			return table(content, t.offsetBytes, &t.offsets)
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
