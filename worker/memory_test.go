package worker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemory guarantees that the machine tells of its memory.
func TestMemory(t *testing.T) {
	t.Parallel()

	require.NotZero(t, freeMemory())
	require.NotZero(t, totalMemory())
}
