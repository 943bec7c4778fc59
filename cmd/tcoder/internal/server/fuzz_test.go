package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
)

// FuzzAPIKeys guarantees that the list of keys is read whole or refused: no key
// is empty, and none belongs to no project.
func FuzzAPIKeys(f *testing.F) {
	for _, value := range []string{"", "key", "project=key", "a=b,c=d, e", "=", "a=", "=b", ",,", "a=b=c"} {
		f.Add(value)
	}

	f.Fuzz(func(t *testing.T, value string) {
		settings := &controlSettings{maxUploadBytes: 1, heartbeat: time.Second, lease: time.Minute}

		err := settings.read(&cli.Program{LookupEnv: func(name string) (string, bool) {
			return value, name == apiKeysEnv
		}})
		if err != nil {
			require.NotEmpty(t, splitList(value))

			return
		}

		for key, project := range settings.apiKeys {
			require.NotEmpty(t, key)
			require.NotEmpty(t, project)
			require.Contains(t, value, key)
		}

		require.LessOrEqual(t, len(settings.apiKeys), len(splitList(value)))
	})
}
