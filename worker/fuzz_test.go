package worker

import (
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRange guarantees that a Range header is answered with bytes of the source
// or with a refusal, whatever it says.
func FuzzRange(f *testing.F) {
	for _, value := range []string{
		"", "bytes=0-", "bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-3", "bytes=1-2,4-5", "bytes=18446744073709551616-", "bytes=--1", "items=0-1",
	} {
		f.Add(value, int64(10))
		f.Add(value, int64(0))
	}

	f.Fuzz(func(t *testing.T, value string, size int64) {
		if size < 0 {
			return
		}

		from, to, status := parseRange(value, size)
		require.True(t, 0 <= from && from <= to && to <= size)

		switch status {
		case http.StatusOK:
			require.Equal(t, [2]int64{0, size}, [2]int64{from, to})
		case http.StatusPartialContent:
			require.Less(t, from, to)
		case http.StatusRequestedRangeNotSatisfiable:
			require.Equal(t, from, to)
		default:
			require.Fail(t, "status", "%d", status)
		}
	})
}

// FuzzServers guarantees that a worker takes URLs it can dial, and no others.
func FuzzServers(f *testing.F) {
	for _, address := range []string{"http://a", "https://a:1", "http://", "a", "ftp://a", "http://[::1", "http://a/%zz", "://", "http://a b"} {
		f.Add(address, "w1")
	}

	f.Add("http://a", "../w")

	f.Fuzz(func(t *testing.T, address, id string) {
		w, err := New(Config{Servers: []string{address}, WorkerID: id, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return
		}

		require.NotEmpty(t, w.ID())
		require.NotContains(t, w.ID(), "/")

		server, err := url.Parse(address)
		require.NoError(t, err)
		require.NotEmpty(t, server.Host)
	})
}
