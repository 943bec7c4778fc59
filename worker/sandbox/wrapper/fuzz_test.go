package wrapper

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzPolicy guarantees that arguments are a policy that encodes to the same
// one, with the same program behind it, or are refused.
func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		"--", "layer=files read=/usr run=/bin/true dir=/tmp user=65534:65534 parent=7 port=443 cpu=9 address=1 file=2 files=3 tasks=4 -- true a=b",
		"layer=files", "user=root --", "port=70000 --", "cpu=-1 --", "dir --", "read=/a=b -- --",
	} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		policy, program, err := decode(strings.Fields(text))
		if err != nil {
			return
		}

		again, rest, err := decode(append(policy.Encode(), program...))
		require.NoError(t, err)
		require.Equal(t, policy, again)
		require.Equal(t, program, rest)
	})
}
