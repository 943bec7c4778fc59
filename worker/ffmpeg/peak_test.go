package ffmpeg

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// tableTrack is a track of equally long samples, of these sizes or of one size.
func tableTrack(timescale, delta, n, uniform uint32, sizes ...uint32) track {
	return track{timescale: timescale, frames: uint64(n), table: &mp4.StblBox{
		Stts: &mp4.SttsBox{SampleCount: []uint32{n}, SampleTimeDelta: []uint32{delta}},
		Stsz: &mp4.StszBox{SampleUniformSize: uniform, SampleNumber: n, SampleSize: sizes},
	}}
}

// TestPeakBytes guarantees that the peak is that of the heaviest second, of
// picture and sound together, whatever their clocks.
func TestPeakBytes(t *testing.T) {
	t.Parallel()

	picture := tableTrack(12800, 6400, 7, 0, 1, 2, 30, 40, 5, 6, 50) // two a second
	paused := tableTrack(1000, 0, 4, 0, 1, 1, 2, 100)
	paused.table.Stts = &mp4.SttsBox{SampleCount: []uint32{2, 0, 2}, SampleTimeDelta: []uint32{5000, 7, 0}}

	for name, want := range map[string]struct {
		tracks []track
		peak   uint64
	}{
		"picture":             {[]track{picture}, 70},
		"with sound":          {[]track{picture, tableTrack(4, 1, 14, 3)}, 82},
		"sound that is later": {[]track{tableTrack(1, 1, 4, 0, 1, 1, 1, 60), picture}, 110},
		"one sample":          {[]track{tableTrack(24, 1, 1, 0, 9)}, 9},
		"a pause":             {[]track{paused}, 102},
		"none":                {[]track{tableTrack(24, 1, 0, 0)}, 0},
	} {
		peak, err := peakBytes(want.tracks, 1000)
		require.NoError(t, err, name)
		require.Equal(t, want.peak, peak, name)
	}
}

// TestPeakOfFile guarantees that a file's peak is told, which is more than its
// average and less than all of it.
func TestPeakOfFile(t *testing.T) {
	t.Parallel()

	dir, file := filepath.Split(mediatest.Clip(t, mediatest.Film))
	ext := filepath.Ext(file)

	found, err := measureMP4(dir, strings.TrimSuffix(file, ext), ext)
	require.NoError(t, err)

	result := found.rendition.GetResult()
	require.Greater(t, result.GetPeakBitrateBps(), result.GetAverageBitrateBps())
	require.Less(t, result.GetPeakBitrateBps(), 8*result.GetSizeBytes())
}

// TestPeakAbsurd guarantees that tables which can't be are refused, or end soon.
func TestPeakAbsurd(t *testing.T) {
	t.Parallel()

	const most = math.MaxUint32

	fewer := tableTrack(24, 1, 3, 0, 1, 2)
	fewer.table.Stsz.SampleNumber = 2
	without := tableTrack(24, 1, 3, 0, 1, 2, 3)
	without.table.Stsz = nil

	for name, one := range map[string]track{
		"fewer sizes": fewer, "no sizes": without,
		"more than the file": tableTrack(24, 1, 2, 0, 999, 2),
		"much more":          tableTrack(24, 0, most, most),
	} {
		_, err := peakBytes([]track{one}, 1000)
		require.ErrorIs(t, err, errResult, name)
	}

	for _, delta := range []uint32{0, 1, most} {
		_, err := peakBytes([]track{tableTrack(1, delta, most, 1)}, math.MaxUint64)
		require.NoError(t, err)
	}
}
