package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGeneratedFilesAreCurrent guarantees that the Lua tables and the picture
// in the docs are those of internal/pipeline/state.go.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()

	root, err := moduleRoot()
	require.NoError(t, err)

	for path, want := range files() {
		got, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		require.Equal(t, want, string(got), "%s is stale: run make generate", path)
	}
}
