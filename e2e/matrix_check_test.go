package e2e_test

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

const (
	// leastSSIM is how alike a picture at least is to its source's.
	leastSSIM = 0.95
	// seamSSIM is how much chunks may cost of that.
	seamSSIM = 0.005
	// clockSlack is the grain of the clocks that are compared.
	clockSlack = 500 * time.Microsecond
)

// matrixRow is a class and its clip, and what is known of them.
type matrixRow struct {
	class

	clip     string
	pictures []mediatest.Seen // of the source
	start    time.Duration    // of its clock
	end      time.Duration    // of its picture
	tones    []time.Duration
	// ssim is that of the renditions of the stream that is made whole.
	ssim map[string]float64
	// streams are those that were made.
	streams []madeStream
}

// look finds out what there is to be seen and heard in the source, once.
func (m *matrixRow) look(t *testing.T) {
	t.Helper()
	if m.end > 0 {
		return
	}
	m.start = time.Hour
	for _, span := range mediatest.Spans(t, m.clip) {
		m.start = min(m.start, span.First)
		m.end = max(m.end, span.End)
	}
	if m.fps > 0 {
		m.pictures = mediatest.WatchDamaged(t, m.clip)
		for i, p := range m.pictures {
			require.True(t, p.Number >= 0 || m.id == mediatest.Corrupt || m.id == mediatest.OneFrame, "picture %d of the source has no number", i)
		}
		if m.id != mediatest.OneFrame {
			m.end = pictureDuration(t, m.clip) + m.start
		}
	}
	if !m.silent {
		m.tones = mediatest.Tones(t, m.clip)
	}
}

// check holds what came out against the source.
func (m *matrixRow) check(t *testing.T, job *tcoderv1.Job, dir string) string {
	t.Helper()
	m.look(t)
	output := job.GetOutputs()[0]
	stream := output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS
	if stream {
		mediatest.CheckHLSDir(t, dir)
	}
	if m.fps == 0 {
		return m.checkSound(t, filepath.Join(dir, soundFile(stream)))
	}
	var made []string
	for _, r := range output.GetRenditions() {
		if r.GetHeight() == 0 {
			continue
		}
		path := filepath.Join(dir, r.GetName()+".mp4")
		sound := path
		if stream {
			path, sound = filepath.Join(dir, r.GetName()+".m3u8"), filepath.Join(dir, soundFile(true))
		}
		made = append(made, r.GetName()+" "+m.checkRendition(t, r, path, sound))
	}
	if !m.silent && m.id != mediatest.Corrupt {
		heard := output.GetEntry()
		if stream {
			heard = soundFile(true)
		}
		mediatest.DecodeClean(t, filepath.Join(dir, heard))
	}

	return strings.Join(made, " + ")
}

func soundFile(stream bool) string {
	if stream {
		return "audio.m3u8"
	}

	return "audio.m4a"
}

// checkSound says that sound without a picture has each tone in its place.
func (m *matrixRow) checkSound(t *testing.T, path string) string {
	t.Helper()
	mediatest.DecodeClean(t, path)
	tones := mediatest.Tones(t, path)
	require.Len(t, tones, len(m.tones))
	for i, at := range tones {
		require.InDelta(t, float64(i+1), at.Seconds(), audioFrame.Seconds(), "tone %d", i)
	}

	return fmt.Sprintf("sound, %d tones", len(tones))
}

// checkRendition says that a rendition shows each picture of the source in its
// place, and sounds in step.
func (m *matrixRow) checkRendition(t *testing.T, r *tcoderv1.RenditionResult, path, sound string) string {
	t.Helper()
	if m.id == mediatest.Corrupt {
		return m.checkDamaged(t, r, path)
	}
	seen := mediatest.Watch(t, path)
	require.Len(t, seen, int(r.GetFrameCount()), path)
	if r.GetCopied() {
		m.checkCopy(t, seen)
	} else {
		m.checkEncode(t, r, seen)
	}
	note := fmt.Sprintf("%d pictures", len(seen))
	if r.GetCopied() {
		note = "copied, " + note
	} else {
		held := 0
		for held+1 < len(seen) && seen[held+1].Number == seen[0].Number {
			held++
		}
		filters := fmt.Sprintf("%sscale=%d:%d:flags=bicubic,setsar=1,format=yuv420p", m.prepare, r.GetWidth(), r.GetHeight())
		ssim := mediatest.SSIM(t, path, m.clip, filters, m.fps, held)
		require.GreaterOrEqual(t, ssim, cmp.Or(m.leastSSIM, leastSSIM), path)
		note += fmt.Sprintf(", SSIM %.4f", ssim)
		if whole, chunked := m.ssim[r.GetName()]; chunked {
			require.GreaterOrEqual(t, ssim, whole-seamSSIM, "the seams of %s cost more than they may", r.GetName())
		} else if strings.HasSuffix(path, ".m3u8") {
			m.ssim[r.GetName()] = ssim
		}
	}
	if !m.silent {
		note += fmt.Sprintf(", sound %+d ms", m.checkInStep(t, seen, sound).Milliseconds())
	}

	return note
}

// checkCopy says that a copy is the source, picture by picture.
func (m *matrixRow) checkCopy(t *testing.T, seen []mediatest.Seen) {
	t.Helper()
	require.Len(t, seen, len(m.pictures))
	for i, p := range seen {
		require.Equal(t, m.pictures[i].Number, p.Number, "picture %d", i)
		require.InDelta(t, (m.pictures[i].At - m.pictures[0].At).Seconds(), (p.At - seen[0].At).Seconds(), clockSlack.Seconds()*2, "picture %d", i)
	}
}

// checkEncode says that an encode has a constant cadence, and shows at each
// time what the source shows then.
func (m *matrixRow) checkEncode(t *testing.T, r *tcoderv1.RenditionResult, seen []mediatest.Seen) {
	t.Helper()
	require.InDelta(t, (m.end-m.start).Seconds()*m.fps, float64(len(seen)), 1.01, "it ends elsewhere than the source")
	require.InDelta(t, m.aspect, float64(r.GetWidth())/float64(r.GetHeight()), 0.02)
	next, shown := 0, m.pictures[0]
	for i, p := range seen {
		for next < len(m.pictures) && math.Round((m.pictures[next].At-m.start).Seconds()*m.fps) <= float64(i) {
			shown = m.pictures[next]
			next++
		}
		require.Equal(t, shown.Number, p.Number, "picture %d", i)
		require.InDelta(t, float64(i)/m.fps, (p.At - seen[0].At).Seconds(), clockSlack.Seconds(), "picture %d", i)
	}
}

// checkInStep returns by how much sound and picture are further apart than in
// the source, where it is most.
func (m *matrixRow) checkInStep(t *testing.T, seen []mediatest.Seen, sound string) time.Duration {
	t.Helper()
	was, is := flashes(m.pictures), flashes(seen)
	tones := mediatest.Tones(t, sound)
	require.Len(t, was, len(m.tones))
	require.Len(t, is, len(was))
	require.Len(t, tones, len(was))
	var most time.Duration
	for i := range was {
		off := (tones[i] - is[i]) - (m.tones[i] - was[i])
		if off.Abs() > most.Abs() {
			most = off
		}
	}
	require.LessOrEqual(t, most.Abs(), audioFrame+time.Millisecond, "sound and picture are apart")

	return most
}

// flashes are when the picture turns bright.
func flashes(pictures []mediatest.Seen) []time.Duration {
	var times []time.Duration
	for i, p := range pictures {
		if p.Flash && (i == 0 || !pictures[i-1].Flash) {
			times = append(times, p.At)
		}
	}

	return times
}

// checkDamaged says that what a damaged source still has is where it was.
func (m *matrixRow) checkDamaged(t *testing.T, r *tcoderv1.RenditionResult, path string) string {
	t.Helper()
	seen := mediatest.WatchDamaged(t, path)
	wanted := (m.end - m.start).Seconds() * m.fps
	if r.GetCopied() { // it lacks the pictures that no decoder gets out of the source
		wanted = float64(len(m.pictures))
	}
	require.InDelta(t, wanted, float64(len(seen)), 1.01, path)
	right := 0
	for _, p := range seen {
		if p.Number == int(math.Round((p.At-seen[0].At).Seconds()*m.fps)) {
			right++
		}
	}
	require.Greater(t, right, len(seen)*3/4)
	note := fmt.Sprintf("%d of %d pictures", right, len(seen))
	if r.GetCopied() {
		note = "copied, " + note
	}

	return note
}
