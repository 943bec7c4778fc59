package mapper

import (
	"math"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
)

func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}

	return timestamppb.New(t)
}

func durationToProto(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}

	return durationpb.New(d)
}

// sizeFromProto returns a size in bytes; what no int64 holds becomes the
// largest one, which every limit refuses.
func sizeFromProto(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

func frameToProto(n int64) uint64 { return uint64(n) }

func rationalToProto(r media.Rational) *tcoderv1.Rational {
	if r == (media.Rational{}) {
		return nil
	}

	return &tcoderv1.Rational{Num: r.Num, Den: r.Den}
}

func rationalFromProto(r *tcoderv1.Rational) media.Rational {
	return media.Rational{Num: r.GetNum(), Den: r.GetDen()}
}

// optional returns nil for the zero value, which means not set.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}

	return &v
}

// What a worker says is kept as long as its job, and read by each call that
// concerns it.
const (
	maxWordBytes    = 100
	maxMessageBytes = 1000
)

// word is what a worker calls a thing, such as a codec or a language.
func word(s string) string { return cut(s, maxWordBytes) }

// cut returns what of a text fits, in whole characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}

	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}

	return s[:most]
}

// mapSlice returns f of each element; nil for none.
func mapSlice[A, B any](as []A, f func(A) B) []B {
	if len(as) == 0 {
		return nil
	}
	bs := make([]B, len(as))
	for i, a := range as {
		bs[i] = f(a)
	}

	return bs
}
