package fly

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSize guarantees that a size which is taken is one that Fly has.
func FuzzSize(f *testing.F) {
	for _, text := range []string{"performance-4x", "performance-4x:16384", "shared-cpu-8x", "shared-cpu-16x", "performance-0x", "performance-4x:1", "x", ""} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		if size, err := ParseSize(text); err == nil {
			require.NoError(t, size.check())
		}

		if at := parseTime(text); !at.IsZero() {
			require.NotEmpty(t, text)
		}
	})
}
