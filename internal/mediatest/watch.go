package mediatest

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Seen is one picture of a numbered clip, or of what was made of it.
type Seen struct {
	At     time.Duration // by the file's own clock
	Number int           // -1 if it can't be read
	Flash  bool
}

// Watch decodes the picture of a numbered clip to its end and returns what is to be seen, in order. It fails the test
// at the first complaint of FFmpeg.
func Watch(t testing.TB, path string) []Seen {
	t.Helper()

	pictures, complaints := watch(t, path)
	require.Empty(t, complaints, "%s does not decode cleanly", path)

	return pictures
}

// WatchDamaged is Watch of a file that needn't decode cleanly.
func WatchDamaged(t testing.TB, path string) []Seen {
	t.Helper()

	pictures, _ := watch(t, path)

	return pictures
}

var (
	complaint   = regexp.MustCompile(`(?m)^.*\[(?:error|fatal|panic)\].*$`)
	shownBase   = regexp.MustCompile(`config in time_base: (\d+)/(\d+)`)
	shownFrames = regexp.MustCompile(`(?m)\bn: *\d+ pts: *(-?\d+) `)
)

func watch(t testing.TB, path string) (pictures []Seen, complaints []string) {
	t.Helper()

	// Of each picture a row of the cells, and a row of the rest, which is as bright in each of its pixels.
	row := strconv.Itoa(cells) + ":1:flags=area"
	graph := "[0:v:0]showinfo=checksum=0,format=gray,split[top][rest];[top]crop=iw:ih/16:0:ih/32,scale=" + row +
		"[number];[rest]crop=iw:ih*3/4:0:ih/4,scale=1:1:flags=area,scale=" + row + "[light];[number][light]vstack"
	args := append([]string{"-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-copyts"}, input(path)...)
	args = append(args, "-filter_complex", graph, "-fps_mode", "passthrough", "-f", "rawvideo", "-")

	var stdout, stderr bytes.Buffer

	cmd := exec.CommandContext(t.Context(), "ffmpeg", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s\n%s", path, &stderr)

	base := shownBase.FindSubmatch(stderr.Bytes())
	require.NotNil(t, base, "no clock in FFmpeg's output:\n%s", &stderr)

	var num, den int64

	_, err := fmt.Sscan(string(base[1])+" "+string(base[2]), &num, &den)
	require.NoError(t, err)

	shown := shownFrames.FindAllSubmatch(stderr.Bytes(), -1)
	require.Len(t, stdout.Bytes(), 2*cells*len(shown), path)

	for i, match := range shown {
		ticks, err := strconv.ParseInt(string(match[1]), 10, 64)
		require.NoError(t, err)

		rows := stdout.Bytes()[2*cells*i:]
		at := time.Duration(float64(ticks) * float64(num) / float64(den) * float64(time.Second))
		pictures = append(pictures, seen(rows[:cells], rows[cells]).at(at))
	}

	return pictures, complaint.FindAllString(stderr.String(), -1)
}

func (s Seen) at(at time.Duration) Seen {
	s.At = at.Round(10 * time.Microsecond)

	return s
}

// seen reads a row of cells, and how bright the rest of the picture is.
func seen(row []byte, light byte) Seen {
	white, black := int(row[0]), int(row[1])
	s := Seen{Flash: 2*int(light) > white+black}

	if white-black < 64 {
		s.Number = -1

		return s
	}

	for bit, cell := range row[2:] {
		// From 0, as black, to 100.
		switch bright := 100 * (int(cell) - black) / (white - black); {
		case bright > 65:
			s.Number |= 1 << bit
		case bright > 35:
			s.Number = -1

			return s
		}
	}

	return s
}

// Tones returns when the tones of a numbered clip begin, by the file's own clock.
func Tones(t testing.TB, path string) []time.Duration {
	t.Helper()

	return toneTimes(t, path)
}

var ssimAll = regexp.MustCompile(`SSIM .*All:([0-9.]+)`)

// SSIM returns how alike the pictures of a file are to those of a source, of which filters make the same size and kind:
// 1 is the same. Pictures are compared in order, at a constant cadence, after those that only hold the first one's place.
func SSIM(t testing.TB, path, source, filters string, rate float64, held int) float64 {
	t.Helper()

	graph := fmt.Sprintf("[0:v:0]trim=start_frame=%d,settb=AVTB,setpts=N[made];"+
		"[1:v:0]%s,setpts=PTS-STARTPTS,fps=%s,settb=AVTB,setpts=N[wanted];[made][wanted]ssim=shortest=1",
		held, filters, strconv.FormatFloat(rate, 'f', 6, 64))
	args := append([]string{"-hide_banner", "-nostdin", "-nostats"}, input(path)...)
	args = append(append(args, input(source)...), "-filter_complex", graph, "-f", "null", "-")
	output, err := exec.CommandContext(t.Context(), "ffmpeg", args...).CombinedOutput()
	require.NoError(t, err, "%s", output)

	found := ssimAll.FindSubmatch(output)
	require.NotNil(t, found, "no SSIM in FFmpeg's output:\n%s", output)

	value, err := strconv.ParseFloat(strings.TrimSuffix(string(found[1]), "."), 64)
	require.NoError(t, err)

	return value
}
