package server

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzAPIKeys guarantees that the list of keys is read whole or refused: no key
// is empty, and none belongs to no project.
func FuzzAPIKeys(f *testing.F) {
	for _, value := range []string{"", "key", "project=key", "a=b,c=d, e", "=", "a=", "=b", ",,", "a=b=c"} {
		f.Add(value)
	}

	f.Fuzz(func(t *testing.T, value string) {
		keys, err := parseAPIKeys(value)
		if err != nil {
			require.NotEmpty(t, splitList(value))

			return
		}

		for key, project := range keys {
			require.NotEmpty(t, key)
			require.NotEmpty(t, project)
			require.Contains(t, value, key)
		}

		require.LessOrEqual(t, len(keys), len(splitList(value)))
	})
}
