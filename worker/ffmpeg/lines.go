package ffmpeg

import "bytes"

// lines cuts what a program writes into lines.
type lines struct {
	line    []byte
	tooLong bool
}

// split takes any piece of the output, and hands on each line that ends in it.
// A line longer than longest is dropped.
func (l *lines) split(data []byte, longest int, take func(line []byte)) {
	for {
		part, after, found := bytes.Cut(data, []byte{'\n'})
		if l.tooLong = l.tooLong || len(l.line)+len(part) > longest; !l.tooLong {
			l.line = append(l.line, part...)
		}

		if !found {
			return
		}

		if !l.tooLong {
			take(l.line)
		}

		l.line, l.tooLong, data = l.line[:0], false, after
	}
}
