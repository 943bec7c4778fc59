package s3_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/objectstoretest"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/s3test"
)

func TestMain(m *testing.M) {
	s3test.Main(m)
}

// The adapter keeps the port's contract on a real S3 server.
func TestConformance(t *testing.T) {
	t.Parallel()
	objectstoretest.Run(t, func(t *testing.T) objectstore.Store {
		t.Helper()
		cfg := s3test.New(t)
		cfg.PageSize = 3
		return newStore(t, cfg)
	})
}

// A URL names the address its users know, not the one the control plane uses,
// and is accepted there.
func TestPublicEndpoint(t *testing.T) {
	t.Parallel()
	cfg := s3test.New(t)
	endpoint, err := url.Parse(cfg.Endpoint)
	require.NoError(t, err)
	cfg.PublicEndpoint = "http://localhost:" + endpoint.Port()
	store := newStore(t, cfg)
	require.NoError(t, store.Put(t.Context(), "key", strings.NewReader("hello"), objectstore.PutOptions{}))

	signed, err := store.PresignGet(t.Context(), "key", objectstore.GetOptions{Expires: time.Minute})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(signed.URL, cfg.PublicEndpoint+"/"+cfg.Bucket+"/key?"), "wrong host or path")
	status, _ := do(t, signed.Method, signed.URL, nil)
	require.Equal(t, http.StatusOK, status)
}

// URLs are of the host that the SDK itself would ask.
func TestPresignedHost(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]s3.Config{
		"https://clips.s3.eu-central-1.amazonaws.com/in/key?":  {Region: "eu-central-1"},
		"https://s3.eu-central-1.amazonaws.com/clips/in/key?":  {Region: "eu-central-1", PathStyle: true},
		"https://clips.store.example.com/in/key?":              {Endpoint: "https://store.example.com"},
		"https://store.example.com:8443/base/clips/in/key?":    {Endpoint: "https://store.example.com:8443/base", PathStyle: true},
		"https://clips.s3.cn-north-1.amazonaws.com.cn/in/key?": {Region: "cn-north-1"},
	} {
		cfg.Bucket, cfg.AccessKeyID, cfg.SecretAccessKey = "clips", "id", "secret"
		signed, err := newStore(t, cfg).PresignGet(t.Context(), "in/key", objectstore.GetOptions{Expires: time.Minute})
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(signed.URL, want), "%s", want)
	}
}

// A key that was written too often is written a second later.
func TestWriteTooSoon(t *testing.T) {
	t.Parallel()
	var times []time.Time
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		times = append(times, time.Now())
		_, _ = io.Copy(io.Discard, r.Body)
		if len(times) == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, "<Error><Code>TooManyRequests</Code><Message>Reduce your request rate for the same object.</Message></Error>")
		}
	}))
	t.Cleanup(server.Close)
	store := newStore(t, s3.Config{Endpoint: server.URL, Bucket: "b", AccessKeyID: "id", SecretAccessKey: "secret", PathStyle: true})
	require.NoError(t, store.Put(t.Context(), "key", strings.NewReader("hello"), objectstore.PutOptions{}))
	require.Len(t, times, 2)
	require.GreaterOrEqual(t, times[1].Sub(times[0]), time.Second)
}

// A write is stored though the last other object of its folders is removed at
// that moment.
func TestWritesMeetDeletions(t *testing.T) {
	t.Parallel()
	const writers, writes = 8, 50
	store := newStore(t, s3test.New(t))
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			key := fmt.Sprintf("out/public/%d/file", i)
			for range writes {
				if err := store.Put(t.Context(), key, strings.NewReader("x"), objectstore.PutOptions{}); err != nil {
					errs <- err
					return
				}
				if err := store.Delete(t.Context(), key); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		require.NoError(t, <-errs)
	}
}

// Any number of control planes may start at once on an empty store.
func TestEnsureBucketIsIdempotent(t *testing.T) {
	t.Parallel()
	cfg := s3test.New(t)
	cfg.Bucket += "-more"
	store := newStore(t, cfg)
	_, err := store.Head(t.Context(), "key")
	require.Error(t, err)
	require.NoError(t, store.EnsureBucket(t.Context()))
	require.NoError(t, store.EnsureBucket(t.Context()))
	require.NoError(t, store.Put(t.Context(), "key", strings.NewReader("x"), objectstore.PutOptions{}))
}

// A page of an allowed origin passes the preflight of an upload and reads the
// ETag; a page of any other origin doesn't.
func TestCORS(t *testing.T) {
	t.Parallel()
	store := newStore(t, s3test.New(t))
	require.Error(t, store.PutCORS(t.Context(), nil))
	require.NoError(t, store.PutCORS(t.Context(), []string{"http://localhost:5173", "https://app.example.com"}))
	signed, err := store.PresignPut(t.Context(), objectstore.PutRequest{
		Key: "in/source", SizeBytes: 5, ContentType: "video/mp4", IfNoneMatch: true, Expires: time.Minute,
	})
	require.NoError(t, err)
	preflight := func(origin string) (int, http.Header) {
		return do(t, http.MethodOptions, signed.URL, map[string]string{
			"Origin":                         origin,
			"Access-Control-Request-Method":  http.MethodPut,
			"Access-Control-Request-Headers": "content-type,if-none-match",
		})
	}
	status, header := preflight("https://app.example.com")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "https://app.example.com", header.Get("Access-Control-Allow-Origin"))
	status, _ = preflight("https://evil.example.com")
	require.Equal(t, http.StatusForbidden, status)

	download, err := store.PresignGet(t.Context(), "in/source", objectstore.GetOptions{Expires: time.Minute})
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "in/source", strings.NewReader("hello"), objectstore.PutOptions{}))
	_, header = do(t, http.MethodGet, download.URL, map[string]string{"Origin": "http://localhost:5173"})
	require.Contains(t, header.Get("Access-Control-Expose-Headers"), "ETag")
}

// Faults of access and of the network are ErrUnavailable, and their text has
// neither a key nor a URL in it.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	cfg := s3test.New(t)
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, change := range map[string]func(*s3.Config){
		"wrong secret":  func(c *s3.Config) { c.SecretAccessKey = "wrong-secret" },
		"wrong key id":  func(c *s3.Config) { c.AccessKeyID = "wrong-id" },
		"nobody there":  func(c *s3.Config) { c.Endpoint = "http://" + closed.Addr().String() },
		"no such host":  func(c *s3.Config) { c.Endpoint = "http://store.invalid" },
		"no bucket yet": func(c *s3.Config) { c.Bucket = "not-there" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := cfg
			change(&changed)
			store := newStore(t, changed)
			err := store.Put(t.Context(), "in/key", strings.NewReader("x"), objectstore.PutOptions{})
			require.ErrorIs(t, err, objectstore.ErrUnavailable)
			require.ErrorContains(t, err, "in/key")
			_, err = store.CreateMultipart(t.Context(), "in/key", objectstore.MultipartOptions{})
			require.ErrorIs(t, err, objectstore.ErrUnavailable)
			for _, secret := range []string{changed.AccessKeyID, changed.SecretAccessKey, "X-Amz", "http://"} {
				require.NotContains(t, err.Error(), secret)
			}
		})
	}
}

// A deadline that passes while the store is silent comes back as such.
func TestDeadline(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	cfg := s3test.New(t)
	cfg.Endpoint = "http://" + silent.Addr().String()
	store := newStore(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = store.Head(ctx, "key")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, objectstore.ErrUnavailable)
}

// A configuration that can't work is refused before anything is tried, without
// repeating what was given.
func TestNewRefusesBadConfig(t *testing.T) {
	t.Parallel()
	good := s3.Config{Endpoint: "http://localhost:1", AccessKeyID: "id", SecretAccessKey: "secret", Bucket: "bucket"}
	_, err := s3.New(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*s3.Config){
		"no bucket":            func(c *s3.Config) { c.Bucket = "" },
		"no key id":            func(c *s3.Config) { c.AccessKeyID = "" },
		"no secret":            func(c *s3.Config) { c.SecretAccessKey = "" },
		"no scheme":            func(c *s3.Config) { c.Endpoint = "localhost:9000" },
		"other scheme":         func(c *s3.Config) { c.PublicEndpoint = "ftp://localhost" },
		"credentials in a URL": func(c *s3.Config) { c.Endpoint = "http://secret:secret@localhost" },
	} {
		bad := good
		change(&bad)
		_, err := s3.New(bad)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "secret", name)
	}
}

func newStore(t *testing.T, cfg s3.Config) *s3.Store {
	t.Helper()
	store, err := s3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}

// do sends a request and returns the answer's status and header.
func do(t *testing.T, method, target string, headers map[string]string) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	require.NoError(t, err)
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, resp.Header
}
