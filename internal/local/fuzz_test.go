package local

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzCredentials guarantees that a credentials file is whole or refused, and
// that no error repeats what is in it.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"access_key_id":"abcdefgh","secret_access_key":"ijklmnop"}`))
	f.Add([]byte(`{"access_key_id":"abcdefgh"}`))
	f.Add([]byte(`null`))
	f.Add([]byte{})

	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "credentials")
		require.NoError(t, os.WriteFile(path, data, 0o600))

		c, err := ReadCredentials(path)
		if err == nil {
			require.NotEmpty(t, c.AccessKeyID)
			require.NotEmpty(t, c.SecretAccessKey)
		} else if len(data) > 16 {
			require.NotContains(t, err.Error(), string(data))
		}
	})
}
