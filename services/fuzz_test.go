package services

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzHost guarantees that a server on loopback answers to localhost and to IP
// addresses alone, however a name is spelled: no page of another origin reaches
// it by a name of its own.
func FuzzHost(f *testing.F) {
	for _, host := range []string{
		"localhost:8080", "LOCALHOST.", "127.0.0.1", "[::1]:80", "::1", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", ":", "",
	} {
		f.Add(host, "http://"+host)
	}

	f.Fuzz(func(t *testing.T, host, origin string) {
		g, err := newGuard("127.0.0.1:8080", nil, nil, nil)
		require.NoError(t, err)

		if g.allowsHost(host) {
			name := hostOf(host)
			_, err := netip.ParseAddr(name)
			require.True(t, name == "localhost" || err == nil)
		}

		if g.allowsOrigin(origin, host) {
			require.True(t, strings.HasSuffix(strings.ToLower(origin), "://"+strings.ToLower(host)))
		}
	})
}
