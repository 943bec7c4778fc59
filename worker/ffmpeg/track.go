package ffmpeg

import (
	"fmt"
	"io"
	"math/bits"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
)

// maxDuration is the longest media time that is believed: a year.
const maxDuration = 366 * 24 * time.Hour

// track is a track of a file that FFmpeg made.
type track struct {
	isVideo bool
	coding
	width, height uint32
	timescale     uint32
	// priming is what an encoder put before the first sample that is meant, as
	// the edit list has it. For video it is only a shift of timestamps.
	priming uint64
	// frames and ticks are counted for progressive files alone.
	frames, ticks uint64
	table         *mp4.StblBox
	trex          *mp4.TrexBox
}

func (t track) duration(ticks uint64) time.Duration {
	if t.timescale == 0 {
		return 0
	}

	whole, rest := ticks/uint64(t.timescale), ticks%uint64(t.timescale)
	if whole > uint64(maxDuration/time.Second) {
		return maxDuration
	}

	high, low := bits.Mul64(rest, uint64(time.Second))
	nanos, _ := bits.Div64(high, low, uint64(t.timescale))

	return time.Duration(whole)*time.Second + time.Duration(nanos)
}

func (t track) contentType() string {
	if t.isVideo {
		return typeVideo
	}

	return typeAudio
}

// segment is what is in one media segment.
type segment struct{ start, ticks, frames uint64 }

// parse reads the boxes of a file. The parser panics on some that FFmpeg makes
// of nothing but broken pictures.
func parse(file io.ReadSeeker) (parsed *mp4.File, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			parsed, err = nil, fmt.Errorf("%w: %v", errResult, cause)
		}
	}()

	parsed, err = mp4.DecodeFile(file, mp4.WithDecodeMode(mp4.DecModeLazyMdat))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errResult, err)
	}

	return parsed, nil
}

// readTrack reads the only track of an init segment.
func readTrack(file io.ReadSeeker) (track, error) {
	tracks, err := readTracks(file)
	if err != nil {
		return track{}, err
	}

	if len(tracks) != 1 {
		return track{}, fmt.Errorf("%w: %d tracks in an init segment", errResult, len(tracks))
	}

	return tracks[0], nil
}

// readTracks reads the tracks of a progressive file or an init segment.
func readTracks(file io.ReadSeeker) ([]track, error) {
	parsed, err := parse(file)
	if err != nil {
		return nil, err
	}

	if parsed.Moov == nil || len(parsed.Moov.Traks) == 0 {
		return nil, fmt.Errorf("%w: no tracks", errResult)
	}

	tracks := make([]track, 0, len(parsed.Moov.Traks))

	for i, box := range parsed.Moov.Traks {
		t, err := describe(box)
		if err != nil {
			return nil, err
		}

		if parsed.Moov.Mvex != nil && i < len(parsed.Moov.Mvex.Trexs) {
			t.trex = parsed.Moov.Mvex.Trexs[i]
		}

		tracks = append(tracks, t)
	}

	return tracks, nil
}

func describe(box *mp4.TrakBox) (track, error) {
	if box.Mdia == nil || box.Mdia.Mdhd == nil || box.Mdia.Minf == nil || box.Mdia.Minf.Stbl == nil || box.Mdia.Minf.Stbl.Stsd == nil {
		return track{}, fmt.Errorf("%w: a track without a description", errResult)
	}

	table := box.Mdia.Minf.Stbl
	t := track{timescale: box.Mdia.Mdhd.Timescale, table: table}

	if box.Edts != nil && len(box.Edts.Elst) > 0 {
		for _, entry := range box.Edts.Elst[0].Entries {
			if entry.MediaTime > 0 {
				t.priming = uint64(entry.MediaTime)
			}
		}
	}

	for _, entry := range table.Stsd.Children {
		switch sample := entry.(type) {
		case *mp4.VisualSampleEntryBox:
			t.isVideo, t.priming = true, 0
			t.width, t.height = uint32(sample.Width), uint32(sample.Height)
			t.coding = videoCoding(sample)
		case *mp4.AudioSampleEntryBox:
			t.coding = audioCoding(sample)
		}
	}

	if t.codecs == "" || t.timescale == 0 {
		return track{}, fmt.Errorf("%w: a track of an unknown codec", errResult)
	}

	if table.Stts != nil {
		for i, n := range table.Stts.SampleCount {
			t.frames += uint64(n)
			t.ticks += uint64(n) * uint64(table.Stts.SampleTimeDelta[i])
		}
	}

	t.ticks -= min(t.ticks, t.priming)

	return t, nil
}

// readSegment reads the tables of a media segment. Its first picture must be
// a keyframe.
func readSegment(file io.ReadSeeker, head track) (segment, error) {
	parsed, err := parse(file)
	if err != nil {
		return segment{}, err
	}

	var (
		made  segment
		first = true
	)

	for _, part := range parsed.Segments {
		for _, fragment := range part.Fragments {
			if fragment.Moof == nil || fragment.Moof.Traf == nil || fragment.Moof.Traf.Tfdt == nil || fragment.Moof.Traf.Tfhd == nil {
				return segment{}, fmt.Errorf("%w: a fragment without a time", errResult)
			}

			traf := fragment.Moof.Traf
			if first {
				made.start = traf.Tfdt.BaseMediaDecodeTime()
			}

			for _, run := range traf.Truns {
				made.ticks += run.AddSampleDefaultValues(traf.Tfhd, head.trex)
				made.frames += uint64(run.SampleCount())

				if first && len(run.Samples) > 0 {
					if head.isVideo && !run.Samples[0].IsSync() {
						return segment{}, fmt.Errorf("%w: a segment doesn't start with a keyframe", errResult)
					}

					first = false
				}
			}
		}
	}

	if made.frames == 0 || made.ticks == 0 {
		return segment{}, fmt.Errorf("%w: an empty segment", errResult)
	}

	return made, nil
}
