// Package objectstoretest is the conformance suite of objectstore.Store: what
// it asserts is what the callers of any adapter rely on.
package objectstoretest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// NewStore returns a store on an empty bucket that no other test uses. The
// store should list in small pages, so that paging is tested with few objects.
type NewStore func(t *testing.T) objectstore.Store

// ttl is long enough for a test and short enough to prove it is passed on.
const ttl = 5 * time.Minute

// Run runs the suite; each test gets its own store.
func Run(t *testing.T, newStore NewStore) {
	t.Helper()
	suites := []map[string]func(bench){objectTests(), signerTests(), multipartTests()}
	for _, tests := range suites {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(newBench(t, newStore))
			})
		}
	}
}

// bench is one test's store, together with the HTTP client of somebody who
// holds no credentials.
type bench struct {
	objectstore.Store

	t    *testing.T
	http *http.Client
}

func newBench(t *testing.T, newStore NewStore) bench {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return bench{Store: newStore(t), t: t, http: &http.Client{Transport: transport}}
}

// send sends a signed request as a client does: the listed headers, a body of
// known length, and what the test adds or changes.
func (b bench) send(req objectstore.SignedRequest, body string, change ...func(*http.Request)) answer {
	t := b.t
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	httpReq, err := http.NewRequestWithContext(t.Context(), req.Method, req.URL, reader)
	require.NoError(t, err)
	for name, value := range req.Header {
		httpReq.Header.Set(name, value)
	}
	for _, apply := range change {
		apply(httpReq)
	}
	resp, err := b.http.Do(httpReq)
	require.NoError(t, err)
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return answer{status: resp.StatusCode, header: resp.Header, body: string(content)}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// requireRefused asserts that the store refused a request that was not signed
// like this. Stores differ in the code.
func requireRefused(t *testing.T, got answer) {
	t.Helper()
	require.Contains(t, []int{http.StatusForbidden, http.StatusBadRequest}, got.status, got.body)
}

func header(name, value string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Set(name, value) }
}

func (b bench) put(key, body string) {
	t := b.t
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, strings.NewReader(body), objectstore.PutOptions{}))
}

func (b bench) content(key string) string {
	t := b.t
	t.Helper()
	body, _, err := b.Get(t.Context(), key)
	require.NoError(t, err)
	var buffer bytes.Buffer
	_, err = buffer.ReadFrom(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return buffer.String()
}

func (b bench) keys(prefix string) []string {
	t := b.t
	t.Helper()
	var keys []string
	require.NoError(t, b.List(t.Context(), prefix, func(object objectstore.ObjectInfo) error {
		keys = append(keys, object.Key)
		return nil
	}))
	return keys
}

func canceled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	return ctx
}
