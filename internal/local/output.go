package local

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
)

const (
	keptLines    = 20
	maxLineBytes = 4 << 10
)

// lineLog passes a child's output to the log line by line and keeps the last
// lines for the error that explains its death. Only the goroutine that copies
// the output may use it until the child has ended.
type lineLog struct {
	ctx    context.Context //nolint:containedctx // of the one child whose output this is
	log    *slog.Logger
	server string
	rest   []byte
	last   []string
}

// Write implements io.Writer. A line is cut where it gets too long to keep.
func (l *lineLog) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		if end < 0 && len(l.rest) < maxLineBytes {
			return len(p), nil
		}
		if end < 0 || end > maxLineBytes {
			end = maxLineBytes
		}
		l.line(string(l.rest[:end]))
		l.rest = bytes.TrimPrefix(l.rest[end:], []byte("\n"))
	}
}

// flush takes what is left as a line.
func (l *lineLog) flush() {
	if len(l.rest) > 0 {
		l.line(string(l.rest))
		l.rest = nil
	}
}

func (l *lineLog) line(text string) {
	text = strings.TrimRight(text, " \r")
	if text == "" {
		return
	}
	l.log.DebugContext(l.ctx, "server output", "server", l.server, "line", text)
	l.last = append(l.last, text)
	if len(l.last) > keptLines {
		l.last = l.last[1:]
	}
}

// explain adds the last lines to an error.
func (l *lineLog) explain(err error) error {
	if len(l.last) == 0 {
		return err
	}
	return fmt.Errorf("%w; its last output:\n%s", err, strings.Join(l.last, "\n"))
}
