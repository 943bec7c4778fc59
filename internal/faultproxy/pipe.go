package faultproxy

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	// chunkBytes is small, so that a narrow connection trickles.
	chunkBytes = 4 << 10
	// chunksOnTheWay is how much a slow direction holds before it stops reading.
	chunksOnTheWay = 256
)

// chunk is what was read at once, or how a direction ended.
type chunk struct {
	bytes   []byte
	arrived time.Time
	err     error // no bytes then
}

// pipe passes one direction on until it ends. A broken half breaks the link.
func (p *Proxy) pipe(l *link, to, from net.Conn, d Direction) {
	chunks := make(chan chunk, chunksOnTheWay)

	go func() {
		defer close(chunks)
		l.read(from, chunks)
	}()

	for c := range chunks {
		if !p.admit(l, c, d) {
			continue // it is over: only the reader has to be let go
		}

		_, err := to.Write(c.bytes)

		switch {
		case errors.Is(c.err, io.EOF):
			closeWrite(to)
		case c.err != nil || err != nil:
			l.reset()
		}
	}
}

// read reads one direction to its end.
func (l *link) read(from net.Conn, chunks chan<- chunk) {
	for {
		buffer := make([]byte, chunkBytes)
		n, err := from.Read(buffer)

		if n > 0 {
			chunks <- chunk{bytes: buffer[:n], arrived: time.Now()}
		}

		if err != nil {
			chunks <- chunk{err: err, arrived: time.Now()}

			return
		}
	}
}

// admit waits until the weather lets a chunk through; false if the link ended.
func (p *Proxy) admit(l *link, c chunk, d Direction) bool {
	turn := time.Now()

	for {
		w := p.now()
		due := c.arrived.Add(w.delay)

		if w.bandwidth > 0 {
			took := time.Duration(len(c.bytes)) * time.Second / time.Duration(w.bandwidth)
			if end := turn.Add(took); end.After(due) {
				due = end
			}
		}

		var timeUp <-chan time.Time

		if w.held&d == 0 {
			left := time.Until(due)
			if left <= 0 {
				return true
			}

			timeUp = time.After(left)
		}

		select {
		case <-timeUp:
		case <-w.changed:
		case <-l.over:
			return false
		}
	}
}

// closeWrite passes the end of one direction on.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it may be closed already
	}
}
