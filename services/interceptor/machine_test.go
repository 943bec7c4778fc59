package interceptor_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// A machine's token is the same wherever it is made, differs from that of every
// other machine and deployment, and doesn't tell the one that signed it.
func TestMachineToken(t *testing.T) {
	t.Parallel()
	token := interceptor.MachineToken("secret", "m1")
	require.Equal(t, token, interceptor.MachineToken("secret", "m1"))
	require.NotEqual(t, token, interceptor.MachineToken("secret", "m2"))
	require.NotEqual(t, token, interceptor.MachineToken("other", "m1"))
	require.NotContains(t, token, "secret")
	require.True(t, strings.HasPrefix(token, "machine.m1."))
}
