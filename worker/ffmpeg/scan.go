package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// ends are where streams really end, by index.
type ends map[uint32]end

// end is where a stream ends.
type end struct {
	at      time.Duration // on the container's clock
	packets int
	// complete is true if the whole file was read, so that no packet means that
	// there is none.
	complete bool
}

// tailLength is how much of the end is read.
const tailLength = time.Second

// tolerance is by how much a header may promise too much.
const tolerance = 500 * time.Millisecond

// seekable are the formats in which seeking finds a time exactly, or before
// it. In the others the file is read as a whole; they are small.
func seekable() []string {
	return []string{"mov", "matroska", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "mxf", "wav", "w64", "flac", "caf", "aiff"}
}

// measured are the formats whose duration FFmpeg finds by looking at the end
// of the file: it promises nothing.
func measured() []string {
	return []string{"mpegts", "mpeg", "ogg", "aac", "ac3", "eac3", "amr", "gif", "dv"}
}

func (h *header) isOne(formats []string) bool { return isOne(h.Format.Name, formats) }

// isOne reports whether a demuxer, by its comma-separated names, is among
// formats.
func isOne(names string, formats []string) bool {
	return slices.ContainsFunc(strings.Split(names, ","), func(name string) bool { return slices.Contains(formats, name) })
}

// findEnds asks the index of the source, or reads its last packets, or all of
// them where that doesn't tell, and fails with INPUT_TRUNCATED where they don't
// keep the header's promise.
func (p *prober) findEnds(ctx context.Context, h *header, index movie) (ends, error) {
	info := h.result(p.req.Source.SizeBytes)
	if found, ok := index.ends(h, info); ok {
		return found, nil
	}

	finish := info.GetStartTime().AsDuration() + info.GetDuration().AsDuration()
	from := max(info.GetStartTime().AsDuration(), finish-tailLength)

	if info.GetDuration() == nil || h.estimated || !h.isOne(seekable()) {
		return p.scanAll(ctx, h, info)
	}

	found, err := p.scan(ctx, h, fmt.Sprintf("%.6f%%", from.Seconds()))
	if err != nil {
		return nil, err
	}

	// A stream that isn't there has either ended before, or it is missing.
	for _, s := range info.GetStreams() {
		if !isMedia(s) || found[s.GetIndex()].packets > 0 {
			continue
		}

		promised, exact := h.promise(info, s)
		if !exact {
			return p.scanAll(ctx, h, info)
		}

		if promised > from+tolerance && h.isOne([]string{"mov"}) {
			return nil, missingEnd(from, finish)
		}
	}

	if err := h.checkPromises(info, found); err != nil {
		// Seeking may have missed: only a look at everything is proof. The
		// tables of MP4 leave no such doubt.
		if !h.isOne([]string{"mov"}) {
			return p.scanAll(ctx, h, info)
		}

		return nil, err
	}

	return found, nil
}

func missingEnd(before, promised time.Duration) *Fault {
	return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, "", fmt.Sprintf(
		"the source ends before %.2f s, its header says %.2f s; upload the whole file", before.Seconds(), promised.Seconds()))
}

func (p *prober) scanAll(ctx context.Context, h *header, info *tcoderv1.ProbeResult) (ends, error) {
	found, err := p.scan(ctx, h, "")
	if err != nil {
		return nil, err
	}

	packets := 0

	for _, s := range info.GetStreams() {
		if isMedia(s) {
			e := found[s.GetIndex()]
			e.complete = true
			found[s.GetIndex()] = e
			packets += e.packets
		}
	}

	if packets == 0 {
		return nil, inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, "", "the source has no readable picture or sound")
	}

	return found, h.checkPromises(info, found)
}

// promise is where the header says that a stream ends, and whether it says so
// of this stream and not only of the whole.
func (h *header) promise(info *tcoderv1.ProbeResult, s *tcoderv1.StreamInfo) (time.Duration, bool) {
	at := slices.IndexFunc(h.Streams, func(stream headerStream) bool { return stream.Index == s.GetIndex() })
	if d, ok := clock(h.Streams[at].Tags.Duration); ok && d > 0 && h.isOne([]string{"matroska"}) {
		return d, true // Matroska tells of the end
	}

	if s.GetDuration() != nil {
		return s.GetStartTime().AsDuration() + s.GetDuration().AsDuration(), h.isOne([]string{"mov", "avi"})
	}

	return info.GetStartTime().AsDuration() + info.GetDuration().AsDuration(), false
}

// checkPromises compares ends with the header.
func (h *header) checkPromises(info *tcoderv1.ProbeResult, found ends) error {
	if h.estimated || h.isOne(measured()) || info.GetDuration() == nil {
		return nil
	}

	var (
		start    = info.GetStartTime().AsDuration()
		last     time.Duration
		anyExact bool
	)

	for _, s := range info.GetStreams() {
		e := found[s.GetIndex()]
		last = max(last, e.at)

		promised, exact := h.promise(info, s)
		if !exact || !isMedia(s) {
			continue
		}

		anyExact = true

		if e.packets > 0 && promised-e.at > tolerance {
			return truncated(e.at-start, promised-start)
		}
	}

	// Where only the whole has a duration, something must last so long.
	if whole := info.GetDuration().AsDuration(); !anyExact && start+whole-last > tolerance {
		return truncated(last-start, whole)
	}

	return nil
}

// scan reads packets of an interval, of the whole source if it is empty.
func (p *prober) scan(ctx context.Context, h *header, interval string) (ends, error) {
	args := append([]string{"-hide_banner", "-v", "level+warning"}, inputArgs(p.req.Limits)...)
	if interval != "" {
		args = append(args, "-read_intervals", interval)
	}

	lines := newPacketLines(h)
	run := p.process(p.tools.FFprobe, append(args,
		"-show_entries", "packet=stream_index,pts_time,dts_time,duration_time,flags", "-of", "compact=p=0:nk=1", p.req.Source.URL)...)
	run.stdout = lines

	exit, err := run.run(ctx)
	if err != nil {
		if errors.Is(err, errTimeLimit) && interval == "" {
			return nil, unknownFault(tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, exit.log, "reading the source took longer than its time limit")
		}

		return nil, endFault(err, exit.log)
	}

	// A seek that fails ends the program with an error; reading a damaged end
	// does too. What was read counts.
	if exit.code != 0 && interval == "" && len(lines.found) == 0 {
		return nil, exitFault(exit, notMedia)
	}

	return lines.found, nil
}

// packetLines reads ffprobe's packets, one a line:
// stream|pts|dts|duration|flags.
type packetLines struct {
	lines

	frame map[uint32]time.Duration // of streams with a cadence
	found ends
}

func newPacketLines(h *header) *packetLines {
	lines := &packetLines{frame: map[uint32]time.Duration{}, found: ends{}}

	for _, s := range h.result(0).GetStreams() {
		if rate := fps(s); rate > 0 {
			lines.frame[s.GetIndex()] = time.Duration(float64(time.Second) / rate)
		}
	}

	return lines
}

// Write takes any piece of the output.
func (l *packetLines) Write(data []byte) (int, error) {
	const longest = 1024

	l.split(data, longest, func(line []byte) { l.take(string(line)) })

	return len(data), nil
}

func (l *packetLines) take(line string) {
	const fields = 5

	parts := strings.Split(strings.TrimSpace(line), "|")
	if len(parts) < fields {
		return
	}

	index, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil || strings.Contains(parts[4], "D") { // a packet that players drop
		return
	}

	at, ok := parseSeconds(parts[1])
	if !ok {
		at, ok = parseSeconds(parts[2])
	}

	if !ok {
		return
	}

	length, ok := parseSeconds(parts[3])
	if !ok || length < 0 {
		length = l.frame[uint32(index)]
	}

	e := l.found[uint32(index)]
	if e.packets++; e.packets == 1 || at+length > e.at {
		e.at = at + length
	}

	l.found[uint32(index)] = e
}
