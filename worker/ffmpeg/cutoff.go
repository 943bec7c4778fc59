package ffmpeg

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// unreadable is the fault of a source that FFmpeg makes nothing of: of a media
// file that was cut off, or of what is none.
func (p *prober) unreadable(ctx context.Context, log string) *Fault {
	if cause := cutOff(ctx, p.req.Source); cause != "" {
		return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, log,
			"the source is cut off: "+cause+"; finish the recording or the download, and upload the whole file")
	}

	return notMedia(log)
}

// cutOff tells what of a media file is missing, empty if nothing is known to be.
func cutOff(ctx context.Context, source Source) string {
	const headBytes = 64

	client := newRangeClient()

	head, err := readRange(ctx, client, source, 0, min(headBytes, source.SizeBytes))
	if err != nil || len(head) < 12 {
		return ""
	}

	promised := int64(0)

	switch {
	case startsMovie(string(head[4:8])):
		return cutMovie(ctx, client, source)
	case string(head[:4]) == "\x1a\x45\xdf\xa3":
		promised = segmentEnd(head)
	case string(head[:4]) == "RIFF":
		promised = 8 + int64(binary.LittleEndian.Uint32(head[4:]))
	}

	if promised > source.SizeBytes {
		return missingBytes(promised - source.SizeBytes)
	}

	return ""
}

func missingBytes(n int64) string {
	return fmt.Sprintf("at least %d bytes of it are missing", n)
}

// cutMovie tells what is missing of an MP4: a box that goes on after the end of
// the file, or the index.
func cutMovie(ctx context.Context, client *http.Client, source Source) string {
	var (
		indexed bool
		media   bool
		missing int64
	)

	err := eachTopBox(ctx, client, source, func(name string, at, _, size int64) bool {
		indexed = indexed || name == "moov"
		media = media || name == "mdat"
		missing = size - (source.SizeBytes - at)

		return missing <= 0
	})

	switch {
	case err != nil:
		return ""
	case missing > 0:
		return missingBytes(missing)
	case media && !indexed:
		return "its index is missing"
	default:
		return ""
	}
}

// segmentEnd is where a Matroska file ends by its head: after the segment that
// follows the description of the format; 0 if that isn't told.
func segmentEnd(head []byte) int64 {
	const segment = "\x18\x53\x80\x67"

	about, width := vint(head[4:])
	if width == 0 || about > uint64(len(head)) {
		return 0
	}

	at := 4 + width + int(about)
	if at+4 >= len(head) || string(head[at:at+4]) != segment {
		return 0
	}

	size, width := vint(head[at+4:])
	if width == 0 {
		return 0
	}

	return int64(at+4+width) + int64(size)
}

// vint reads a length as EBML writes it, and how many bytes it takes: 0 for
// what is none, and for one that says that it isn't known.
func vint(data []byte) (value uint64, width int) {
	if len(data) == 0 || data[0] == 0 {
		return 0, 0
	}

	width = 1
	for mark := byte(0x80); data[0]&mark == 0; mark >>= 1 {
		width++
	}

	if len(data) < width {
		return 0, 0
	}

	for _, b := range data[:width] {
		value = value<<8 | uint64(b)
	}

	value &= 1<<(7*width) - 1
	if value == 1<<(7*width)-1 {
		return 0, 0
	}

	return value, width
}
