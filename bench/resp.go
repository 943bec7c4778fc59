package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// respConn is a connection to Redis, as bare as can be.
type respConn struct {
	net.Conn

	in *bufio.Reader
}

// respBuffer holds what a batch of commands, or its answer, takes.
const respBuffer = 256 << 10

// replyError is an error that Redis answered.
type replyError string

func (e replyError) Error() string { return string(e) }

func dialRESP(ctx context.Context, address string) (*respConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}

	return &respConn{Conn: conn, in: bufio.NewReaderSize(conn, respBuffer)}, nil
}

func (c *respConn) close() { _ = c.Close() }

// do sends a command and returns its answer: a string, an int64, nil, or a list of them.
func (c *respConn) do(args ...string) (any, error) {
	if _, err := c.Write(encodeCommand(args...)); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	reply, err := readReply(c.in)
	if err != nil {
		return nil, fmt.Errorf("redis: %s: %w", args[0], err)
	}

	return reply, nil
}

func encodeCommand(args ...string) []byte {
	raw := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		raw = fmt.Appendf(raw, "$%d\r\n%s\r\n", len(arg), arg)
	}

	return raw
}

// readReply decodes the next answer.
func readReply(in *bufio.Reader) (any, error) {
	raw, err := readValue(in, nil)
	if err != nil {
		return nil, err
	}
	value, _, err := decodeValue(raw)

	return value, err
}

// readValue appends the next value of the protocol, whole, to raw.
func readValue(in *bufio.Reader, raw []byte) ([]byte, error) {
	for left := 1; left > 0; left-- {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return raw, err
		}
		if len(line) < 3 {
			return raw, errors.New("not the protocol of Redis")
		}
		kind, length := line[0], 0
		if kind == '$' || kind == '*' {
			if length, err = strconv.Atoi(string(line[1 : len(line)-2])); err != nil {
				return raw, fmt.Errorf("length: %w", err)
			}
		}
		raw = append(raw, line...)
		switch {
		case kind == '*' && length > 0:
			left += length
		case kind == '$' && length >= 0:
			at := len(raw)
			raw = append(raw, make([]byte, length+2)...)
			if _, err := io.ReadFull(in, raw[at:]); err != nil {
				return raw, err
			}
		}
	}

	return raw, nil
}

// skipValue reads over the next value, and says whether it is an error.
func skipValue(in *bufio.Reader) (failed bool, err error) {
	for left := 1; left > 0; left-- {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return failed, err
		}
		switch line[0] {
		case '-':
			failed = true
		case '*', '$':
			length := lengthOf(line)
			if line[0] == '*' {
				left += max(0, length)
			} else if length >= 0 {
				if _, err := in.Discard(length + 2); err != nil {
					return failed, err
				}
			}
		}
	}

	return failed, nil
}

// lengthOf reads the number of a header line; -1 for that of nothing.
func lengthOf(line []byte) int {
	n := 0
	for _, c := range line[1:] {
		if c == '-' {
			return -1
		}
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}

	return n
}

// decodeValue reads a whole value and returns what follows it.
func decodeValue(raw []byte) (any, []byte, error) {
	end := 0
	for raw[end] != '\n' {
		end++
	}
	line, rest := string(raw[1:end-1]), raw[end+1:]
	switch raw[0] {
	case '+':
		return line, rest, nil
	case '-':
		return nil, rest, replyError(line)
	case ':':
		n, err := strconv.ParseInt(line, 10, 64)

		return n, rest, err
	case '$':
		n := lengthOf(raw)
		if n < 0 {
			return nil, rest, nil
		}

		return string(rest[:n]), rest[n+2:], nil
	case '*':
		n := lengthOf(raw)
		if n < 0 {
			return nil, rest, nil
		}
		list := make([]any, n)
		for i := range list {
			var err error
			if list[i], rest, err = decodeValue(rest); err != nil {
				return nil, rest, err
			}
		}

		return list, rest, nil
	default:
		return nil, rest, errors.New("not the protocol of Redis")
	}
}
