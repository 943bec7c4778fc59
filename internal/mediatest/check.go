package mediatest

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// DecodeClean decodes every video and audio stream of the file or playlist to its end and fails the test at the first
// complaint of FFmpeg.
func DecodeClean(t testing.TB, path string) {
	t.Helper()

	args := append([]string{"-hide_banner", "-nostdin", "-v", "error", "-xerror"}, input(path)...)
	args = append(args, "-map", "0:v?", "-map", "0:a?", "-fps_mode", "passthrough", "-abort_on", "empty_output", "-f", "null", "-")

	output, err := exec.CommandContext(t.Context(), "ffmpeg", args...).CombinedOutput()
	require.NoError(t, err, "%s does not decode:\n%s", path, output)
	require.Empty(t, string(output), "%s does not decode cleanly", path)
}

// KeyframeTimes returns the presentation times of the first video stream's keyframes, in order.
func KeyframeTimes(t testing.TB, path string) []time.Duration {
	t.Helper()

	var times []time.Duration

	for _, packet := range packets(t, path, "-select_streams", "v:0") {
		if packet.key {
			times = append(times, packet.pts)
		}
	}

	slices.Sort(times)

	return times
}

// FrameTimes returns when the pictures of the first video stream are shown, in order, to a tenth of a millisecond: what
// clocks of different units agree on.
func FrameTimes(t testing.TB, path string) []time.Duration {
	t.Helper()

	var times []time.Duration
	for _, packet := range packets(t, path, "-select_streams", "v:0") {
		times = append(times, packet.pts.Round(100*time.Microsecond))
	}

	slices.Sort(times)

	return times
}

// PacketsSum returns a checksum of all packets of a kind, "v" or "a", as a decoder gets them, without their timestamps.
func PacketsSum(t testing.TB, path, kind string) string {
	t.Helper()

	args := append([]string{"-nostdin", "-v", "error"}, input(path)...)
	args = append(args, "-map", "0:"+kind, "-c", "copy")

	if kind == "v" {
		args = append(args, "-bsf:v", "h264_mp4toannexb")
	}

	output, err := exec.CommandContext(t.Context(), "ffmpeg", append(args, "-f", "md5", "-")...).Output()
	require.NoError(t, err)

	return string(output)
}

// Span is when a stream is to be seen or heard.
type Span struct {
	// First is the presentation time of the first packet, End the latest end of a packet. Packets that the container
	// tells players to drop, like an encoder's priming, don't count.
	First, End time.Duration
}

// Spans returns the span of each stream by its index in the file. Unlike Info's durations it doesn't rely on what
// headers say, and works on playlists.
func Spans(t testing.TB, path string) map[int]Span {
	t.Helper()

	spans := map[int]Span{}

	for _, packet := range packets(t, path) {
		span, seen := spans[packet.stream]
		if !seen {
			span.First = packet.pts
		}

		spans[packet.stream] = Span{First: min(span.First, packet.pts), End: max(span.End, packet.pts+packet.duration)}
	}

	return spans
}

type packet struct {
	stream        int
	pts, duration time.Duration
	key           bool
}

func packets(t testing.TB, path string, args ...string) []packet {
	t.Helper()

	args = append(args, "-show_entries", "packet=stream_index,pts_time,duration_time,flags", "-of", "compact=p=0")

	var all []packet

	for line := range strings.Lines(string(ffprobe(t, path, args...))) {
		fields := map[string]string{}

		for field := range strings.SplitSeq(strings.TrimSpace(line), "|") {
			name, value, _ := strings.Cut(field, "=")
			fields[name] = value
		}

		if fields["pts_time"] == "" || fields["pts_time"] == "N/A" || strings.Contains(fields["flags"], "D") {
			continue
		}

		stream, err := strconv.Atoi(fields["stream_index"])
		require.NoError(t, err)

		var pts, duration seconds

		require.NoError(t, pts.UnmarshalText([]byte(fields["pts_time"])))
		require.NoError(t, duration.UnmarshalText([]byte(fields["duration_time"])))

		all = append(all, packet{
			stream: stream, pts: time.Duration(pts), duration: time.Duration(duration),
			key: strings.HasPrefix(fields["flags"], "K"),
		})
	}

	return all
}

// Beat is one flash and one tone of FlashBeep, which the source starts together.
type Beat struct{ Flash, Tone time.Duration }

// Offset is by how much the tone comes late.
func (b Beat) Offset() time.Duration { return b.Tone - b.Flash }

// Beats finds the flashes and the tones in what became of FlashBeep, and pairs them in order. It fails the test if
// their numbers differ.
func Beats(t testing.TB, path string) []Beat {
	t.Helper()

	flashes, tones := flashTimes(t, path), toneTimes(t, path)
	require.Len(t, tones, len(flashes), "flashes at %v, tones at %v", flashes, tones)

	beats := make([]Beat, len(flashes))
	for i := range beats {
		beats[i] = Beat{Flash: flashes[i], Tone: tones[i]}
	}

	return beats
}

// flashTimes returns when the picture turns bright.
func flashTimes(t testing.TB, path string) []time.Duration {
	t.Helper()

	const bright = 128 // of 255; the picture between the flashes stays below 64

	output := measure(t, path, "-map", "0:v:0", "-vf", "scale=64:36,signalstats,metadata=mode=print:key=lavfi.signalstats.YAVG")
	found := regexp.MustCompile(`pts_time:([0-9.]+)\s+(?:\[[^]]*\]\s)?lavfi\.signalstats\.YAVG=([0-9.]+)`).FindAllStringSubmatch(output, -1)
	require.NotEmpty(t, found, "no brightness in FFmpeg's output:\n%s", output)

	var (
		times []time.Duration
		lit   bool
	)

	for _, match := range found {
		brightness, err := strconv.ParseFloat(match[2], 64)
		require.NoError(t, err)

		if brightness > bright && !lit {
			times = append(times, parseSeconds(t, match[1]))
		}

		lit = brightness > bright
	}

	return times
}

// toneTimes returns when silence ends.
func toneTimes(t testing.TB, path string) []time.Duration {
	t.Helper()

	output := measure(t, path, "-map", "0:a:0", "-af", "silencedetect=noise=-30dB:duration=0.2")

	var times []time.Duration

	for _, match := range regexp.MustCompile(`silence_end: ([0-9.]+)`).FindAllStringSubmatch(output, -1) {
		times = append(times, parseSeconds(t, match[1]))
	}

	// Silence that lasts to the end of the file ends there too, without a tone.
	if end := lastEnd(t, path); len(times) > 0 && end-times[len(times)-1] < 50*time.Millisecond {
		times = times[:len(times)-1]
	}

	return times
}

func lastEnd(t testing.TB, path string) time.Duration {
	t.Helper()

	var end time.Duration
	for _, span := range Spans(t, path) {
		end = max(end, span.End)
	}

	return end
}

// measure returns what FFmpeg's measuring filters print, with the timestamps of the file.
func measure(t testing.TB, path string, args ...string) string {
	t.Helper()

	args = append(append([]string{"-hide_banner", "-nostdin", "-nostats", "-copyts"}, input(path)...), args...)
	args = append(args, "-fps_mode", "passthrough", "-f", "null", "-")

	var stderr bytes.Buffer

	cmd := exec.CommandContext(t.Context(), "ffmpeg", args...)
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Run(), "%s", &stderr)

	return stderr.String()
}

func parseSeconds(t testing.TB, text string) time.Duration {
	t.Helper()

	var value seconds

	require.NoError(t, value.UnmarshalText([]byte(text)))

	return time.Duration(value)
}

// RequireFaststart fails the test unless an MP4 file has its index before its media.
func RequireFaststart(t testing.TB, path string) {
	t.Helper()

	content, err := os.ReadFile(path)
	require.NoError(t, err)

	index, media := bytes.Index(content, []byte("moov")), bytes.Index(content, []byte("mdat"))
	require.Positive(t, index, "no index")
	require.Less(t, index, media, "the index comes after the media")
}
