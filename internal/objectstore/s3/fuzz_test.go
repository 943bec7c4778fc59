package s3

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzEndpoint guarantees that an endpoint which is taken is one to sign for,
// and holds no credentials, which logs would repeat.
func FuzzEndpoint(f *testing.F) {
	for _, endpoint := range []string{"https://a", "http://127.0.0.1:1", "a", "https://user:secret@a", "https://", "http://[::1", "ftp://a", "http://a/%zz"} {
		f.Add(endpoint)
	}

	f.Fuzz(func(t *testing.T, endpoint string) {
		cfg := Config{Bucket: "b", AccessKeyID: "k", SecretAccessKey: "s", Endpoint: endpoint}
		if check(cfg) != nil || endpoint == "" {
			return
		}

		u, err := url.Parse(endpoint)
		require.NoError(t, err)
		require.NotEmpty(t, u.Host)
		require.Nil(t, u.User)

		store, err := New(cfg)
		require.NoError(t, err)
		store.Close()
	})
}
