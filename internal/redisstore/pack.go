package redisstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// What Lua keeps of a job and its tasks is packed by its struct library, in
// fields of fixed sizes, each string behind its length: lua/include/record.lua
// names them. Requests of the shared calls are packed as
// MessagePack, which Lua takes apart in one step.

var errPacked = errors.New("a packed record is cut short")

// reader takes a packed record apart; the first lack of bytes is kept, and
// what is read behind it is zero.
type reader struct {
	raw string
	err error
}

// next takes n bytes.
func (r *reader) next(n int) string {
	if n > len(r.raw) {
		r.raw, r.err = "", errPacked

		return ""
	}

	taken := r.raw[:n]
	r.raw = r.raw[n:]

	return taken
}

// uint reads an unsigned number of so many bytes.
func (r *reader) uint(size int) int64 {
	var n int64

	for _, b := range []byte(r.next(size)) {
		n = n<<8 | int64(b)
	}

	return n
}

func (r *reader) int(size int) int     { return int(r.uint(size)) }
func (r *reader) text(size int) string { return r.next(r.int(size)) }
func (r *reader) time() time.Time      { return timeOf(r.uint(6)) }
func (r *reader) float() float64       { return math.Float64frombits(uint64(r.uint(8))) }
func (r *reader) signed16() int        { return int(int16(r.uint(2))) }
func (r *reader) skip(size int)        { r.next(size) }
func (r *reader) more() bool           { return r.err == nil && r.raw != "" }

// finish returns an error if the record was cut short.
func (r *reader) finish(of string) error {
	if r.err == nil {
		return nil
	}

	return internalError("read "+of, r.err)
}

// appendFields packs numbers, each behind its size in bytes.
func appendFields(b []byte, sizesAndNumbers ...int) []byte {
	for i := 0; i+1 < len(sizesAndNumbers); i += 2 {
		var wide [8]byte

		binary.BigEndian.PutUint64(wide[:], uint64(sizesAndNumbers[i+1]))
		b = append(b, wide[8-sizesAndNumbers[i]:]...)
	}

	return b
}

// appendArgs packs the arguments of a request.
func appendArgs(b []byte, args []any) ([]byte, error) {
	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			b = appendText(b, v)
		case int:
			b = appendInt(b, int64(v))
		case int64:
			b = appendInt(b, v)
		case float64:
			b = binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v))
		case []any:
			b = binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(len(v)))

			var err error
			if b, err = appendArgs(b, v); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("an argument is a %T", arg)
		}
	}

	return b, nil
}

func appendText(b []byte, v string) []byte {
	switch n := len(v); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}

	return append(b, v...)
}

func appendInt(b []byte, v int64) []byte {
	if v >= 0 && v < 1<<7 {
		return append(b, byte(v))
	}

	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
}
