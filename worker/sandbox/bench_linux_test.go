package sandbox_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// BenchmarkCommand measures what the wrapper adds to the start of a program:
// the difference to bare.
func BenchmarkCommand(b *testing.B) {
	keeper, err := sandbox.New(b.Context(), sandbox.Config{Mode: sandbox.Require})
	require.NoError(b, err)

	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, exec.CommandContext(b.Context(), "/bin/true").Run())
		}
	})

	for name, keeper := range map[string]*sandbox.Sandbox{"limits": sandbox.Limited(), "all layers": keeper} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				cmd, err := keeper.Command(b.Context(), sandbox.Run{Path: "/bin/true"})
				require.NoError(b, err)
				require.NoError(b, cmd.Run())
			}
		})
	}
}
