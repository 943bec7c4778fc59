package worker

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// newID makes a ULID: 48 bits of milliseconds and 80 of chance, in Crockford's
// base 32, so that ids sort by the time they were made.
func newID(now time.Time) string {
	const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

	// 26 characters hold 130 bits: the id's 128 stand at the low end of 160, and
	// the six characters before them are dropped.
	var bits [20]byte

	binary.BigEndian.PutUint64(bits[2:], uint64(now.UnixMilli()))
	_, _ = rand.Read(bits[10:]) // never fails

	return base32.NewEncoding(crockford).WithPadding(base32.NoPadding).EncodeToString(bits[:])[6:]
}
