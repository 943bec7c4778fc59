package memhttp

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufferBytes is how much may be on the way in one direction.
const bufferBytes = 64 << 10

// conn is one end of a connection.
type conn struct {
	in, out       *half
	local, remote net.Addr
	forget        func()
}

// Read reads what the other end wrote.
func (c *conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write waits while the buffer is full.
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close closes both directions.
func (c *conn) Close() error {
	c.in.closeReader()
	c.out.closeWriter()
	c.forget()

	return nil
}

// LocalAddr is the name of this end.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the name of the other end.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds reads; zero unbounds them.
func (c *conn) SetReadDeadline(t time.Time) error { return c.in.setDeadline(&c.in.readBy, t) }

// SetWriteDeadline bounds writes; zero unbounds them.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.setDeadline(&c.out.writeBy, t) }

// half is one direction of a connection.
type half struct {
	mu      sync.Mutex
	changed *sync.Cond

	buffer []byte
	lost   bool // what is written vanishes
	held   bool // what is written isn't read
	broken bool

	readerClosed, writerClosed bool
	readBy, writeBy            deadline
}

// deadline is a bound on reads or writes.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)

	return h
}

// change changes the state, and wakes who waits for it.
func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()

	f()
	h.changed.Broadcast()
}

func (h *half) reset() { h.change(func() { h.broken = true }) }

func (h *half) lose() { h.change(func() { h.lost, h.buffer = true, nil }) }

func (h *half) hold(held bool) { h.change(func() { h.held = held }) }

func (h *half) closeReader() {
	h.change(func() {
		h.readerClosed = true
		h.readBy.stop()
	})
}

func (h *half) closeWriter() {
	h.change(func() {
		h.writerClosed = true
		h.writeBy.stop()
	})
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	for {
		switch {
		case h.readerClosed:
			return 0, net.ErrClosed
		case h.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case h.broken:
			return 0, syscall.ECONNRESET
		case h.held || h.lost:
		case len(h.buffer) > 0:
			n := copy(p, h.buffer)
			h.buffer = h.buffer[n:]
			h.changed.Broadcast()

			return n, nil
		case h.writerClosed:
			return 0, io.EOF
		}

		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	for written := 0; ; {
		switch {
		case h.writerClosed:
			return written, net.ErrClosed
		case h.writeBy.passed:
			return written, os.ErrDeadlineExceeded
		case h.broken:
			return written, syscall.ECONNRESET
		case h.lost:
			return len(p), nil
		case h.readerClosed:
			return written, syscall.EPIPE
		case len(h.buffer) < bufferBytes:
			n := min(len(p)-written, bufferBytes-len(h.buffer))
			h.buffer = append(h.buffer, p[written:written+n]...)
			written += n
			h.changed.Broadcast()
		}

		if written == len(p) {
			return written, nil
		}

		if len(h.buffer) >= bufferBytes {
			h.changed.Wait()
		}
	}
}

// setDeadline sets one of the half's deadlines.
func (h *half) setDeadline(d *deadline, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()

	d.stop()

	d.passed = !t.IsZero() && !t.After(time.Now())
	if !t.IsZero() && !d.passed {
		var timer *time.Timer

		timer = time.AfterFunc(time.Until(t), func() {
			h.change(func() { d.passed = d.passed || d.timer == timer })
		})
		d.timer = timer
	}

	h.changed.Broadcast()

	return nil
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
