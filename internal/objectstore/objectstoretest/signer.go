package objectstoretest

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

func signerTests() map[string]func(bench) {
	return map[string]func(bench){
		"PresignPut":            presignPut,
		"PresignPutBounds":      presignPutBounds,
		"PresignPutOpen":        presignPutOpen,
		"PresignPutIfNoneMatch": presignPutIfNoneMatch,
		"PresignPutIsBound":     presignPutIsBound,
		"PresignGet":            presignGet,
		"PresignGetRange":       presignGetRange,
		"PresignOddKeys":        presignOddKeys,
		"PresignExpires":        presignExpires,
		"PresignArguments":      presignArguments,
		"PresignNeedsNoNetwork": presignNeedsNoNetwork,
	}
}

// presignPut: a client without credentials writes the object it was allowed
// to, sending just the listed headers.
func presignPut(b bench) {
	t := b.t
	before := time.Now().Truncate(time.Second)
	signed, err := b.PresignPut(t.Context(), objectstore.PutRequest{
		Key: "in/source", SizeBytes: 5, ContentType: "video/mp4", CacheControl: "max-age=60", Expires: ttl,
	})
	require.NoError(t, err)
	require.Equal(t, http.MethodPut, signed.Method)
	require.Equal(t, map[string]string{"Content-Type": "video/mp4", "Cache-Control": "max-age=60"}, signed.Header)
	require.WithinRange(t, signed.ExpiresAt, before.Add(ttl), time.Now().Add(ttl))

	require.Equal(t, http.StatusOK, b.send(signed, "hello").status)
	info, err := b.Head(t.Context(), "in/source")
	require.NoError(t, err)
	require.EqualValues(t, 5, info.SizeBytes)
	require.Equal(t, "video/mp4", info.ContentType)
	read, err := b.PresignGet(t.Context(), "in/source", objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err)
	require.Equal(t, "max-age=60", b.send(read, "").header.Get("Cache-Control"))
}

// presignPutBounds: another length or type than the signed one is refused and
// writes nothing.
func presignPutBounds(b bench) {
	t := b.t
	signed, err := b.PresignPut(t.Context(), objectstore.PutRequest{
		Key: "in/source", SizeBytes: 5, ContentType: "video/mp4", Expires: ttl,
	})
	require.NoError(t, err)
	requireRefused(t, b.send(signed, "hell"))
	requireRefused(t, b.send(signed, "hello!"))
	requireRefused(t, b.send(signed, "hello", header("Content-Type", "text/html")))
	chunked := b.send(signed, "hello", func(req *http.Request) {
		req.Body, req.ContentLength, req.Close = io.NopCloser(strings.NewReader("hello")), -1, true
	})
	require.GreaterOrEqual(t, chunked.status, http.StatusBadRequest, "a body of unknown length")
	_, err = b.Head(t.Context(), "in/source")
	require.ErrorIs(t, err, objectstore.ErrNotFound)
}

// presignPutOpen: without a size any length is taken.
func presignPutOpen(b bench) {
	t := b.t
	signed, err := b.PresignPut(t.Context(), objectstore.PutRequest{Key: "out/1.m4s", Expires: ttl})
	require.NoError(t, err)
	require.Empty(t, signed.Header)
	require.Equal(t, http.StatusOK, b.send(signed, "hello world").status)
	require.Equal(t, "hello world", b.content("out/1.m4s"))
}

// presignPutIfNoneMatch: the second upload by such a URL fails with 412 and
// leaves the first object.
func presignPutIfNoneMatch(b bench) {
	t := b.t
	signed, err := b.PresignPut(t.Context(), objectstore.PutRequest{
		Key: "in/source", SizeBytes: 5, Expires: ttl, IfNoneMatch: true,
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"If-None-Match": "*"}, signed.Header)
	requireRefused(t, b.send(signed, "first", func(req *http.Request) { req.Header.Del("If-None-Match") }))
	require.Equal(t, http.StatusOK, b.send(signed, "first").status)
	require.Equal(t, http.StatusPreconditionFailed, b.send(signed, "other").status)
	require.Equal(t, "first", b.content("in/source"))
}

// presignPutIsBound: a URL is good for its key and its method only.
func presignPutIsBound(b bench) {
	t := b.t
	b.put("in/mine", "x")
	b.put("in/other", "kept")
	signed, err := b.PresignPut(t.Context(), objectstore.PutRequest{Key: "in/mine", SizeBytes: 5, Expires: ttl})
	require.NoError(t, err)
	moved := signed
	moved.URL = strings.Replace(signed.URL, "/in/mine", "/in/other", 1)
	requireRefused(t, b.send(moved, "hello"))
	require.Equal(t, "kept", b.content("in/other"))
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		other := signed
		other.Method = method
		requireRefused(t, b.send(other, ""))
	}
	require.Equal(t, "x", b.content("in/mine"))
}

// presignOddKeys: whatever a key is made of, its URL is of that object.
func presignOddKeys(b bench) {
	t := b.t
	for _, key := range []string{"in/a b+c.mp4", "in/100%.mp4", "in/%20.mp4", "in/ü~(1)!*'.mp4", "in/a=b&c;d,e:f@g$h.mp4", "in/#?.mp4"} {
		put, err := b.PresignPut(t.Context(), objectstore.PutRequest{Key: key, SizeBytes: int64(len(key)), Expires: ttl})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, b.send(put, key).status, key)
		require.Equal(t, key, b.content(key))
		get, err := b.PresignGet(t.Context(), key, objectstore.GetOptions{Expires: ttl})
		require.NoError(t, err)
		answer := b.send(get, "")
		require.Equal(t, http.StatusOK, answer.status, key)
		require.Equal(t, key, answer.body)
	}
}

// presignGet: a download needs no header and answers with the wanted ones.
func presignGet(b bench) {
	t := b.t
	b.put("out/720p.mp4", "movie")
	signed, err := b.PresignGet(t.Context(), "out/720p.mp4", objectstore.GetOptions{
		Expires: ttl, ContentDisposition: `attachment; filename="my clip.mp4"`, ContentType: "video/mp4",
	})
	require.NoError(t, err)
	require.Equal(t, http.MethodGet, signed.Method)
	require.Empty(t, signed.Header)
	got := b.send(signed, "")
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "movie", got.body)
	require.Equal(t, `attachment; filename="my clip.mp4"`, got.header.Get("Content-Disposition"))
	require.Equal(t, "video/mp4", got.header.Get("Content-Type"))
}

// presignGetRange: FFmpeg reads any range of a source, with one URL.
func presignGetRange(b bench) {
	t := b.t
	b.put("in/source", "0123456789")
	signed, err := b.PresignGet(t.Context(), "in/source", objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err)
	for rangeHeader, want := range map[string]string{"bytes=0-3": "0123", "bytes=4-": "456789", "bytes=-2": "89"} {
		got := b.send(signed, "", header("Range", rangeHeader))
		require.Equal(t, http.StatusPartialContent, got.status, rangeHeader)
		require.Equal(t, want, got.body, rangeHeader)
		require.Contains(t, got.header.Get("Content-Range"), "/10", rangeHeader)
	}
	past := b.send(signed, "", header("Range", "bytes=10-"))
	require.Equal(t, http.StatusRequestedRangeNotSatisfiable, past.status)
}

// presignExpires: a URL works before its deadline and no more after it.
func presignExpires(b bench) {
	t := b.t
	b.put("key", "x")
	signed, err := b.PresignGet(t.Context(), "key", objectstore.GetOptions{Expires: 1900 * time.Millisecond})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Second), signed.ExpiresAt, time.Second, "rounded down")
	require.Eventually(t, func() bool {
		got := b.send(signed, "")
		if got.status == http.StatusOK {
			return false
		}
		requireRefused(t, got)
		return true
	}, 10*time.Second, 50*time.Millisecond, "the URL never expired")
	require.False(t, time.Now().Before(signed.ExpiresAt), "refused before its deadline")
}

// presignArguments: what no store could serve is refused when signing.
func presignArguments(b bench) {
	t := b.t
	for _, expires := range []time.Duration{0, -time.Second, objectstore.MinExpires - 1, objectstore.MaxExpires + 1} {
		_, err := b.PresignPut(t.Context(), objectstore.PutRequest{Key: "key", SizeBytes: 1, Expires: expires})
		require.Error(t, err, expires)
		_, err = b.PresignGet(t.Context(), "key", objectstore.GetOptions{Expires: expires})
		require.Error(t, err, expires)
		_, err = b.PresignPart(t.Context(), "key", "upload", 1, 1, expires)
		require.Error(t, err, expires)
	}
	for _, size := range []int64{-1, objectstore.MaxPutSizeBytes + 1} {
		_, err := b.PresignPut(t.Context(), objectstore.PutRequest{Key: "key", SizeBytes: size, Expires: ttl})
		require.Error(t, err, size)
		_, err = b.PresignPart(t.Context(), "key", "upload", 1, size, ttl)
		require.Error(t, err, size)
	}
	_, err := b.PresignPart(t.Context(), "key", "upload", 1, 0, ttl)
	require.Error(t, err, "a part without a size")
	for _, number := range []int{-1, 0, objectstore.MaxParts + 1} {
		_, err := b.PresignPart(t.Context(), "key", "upload", number, 1, ttl)
		require.Error(t, err, number)
	}
	_, err = b.PresignPut(t.Context(), objectstore.PutRequest{
		Key: "key", SizeBytes: objectstore.MaxPutSizeBytes, Expires: objectstore.MaxExpires,
	})
	require.NoError(t, err, "the limits themselves")
	_, err = b.PresignPart(t.Context(), "key", "upload", objectstore.MaxParts, 1, objectstore.MinExpires)
	require.NoError(t, err, "the limits themselves")
}

// presignNeedsNoNetwork: with a context that would end any request, signing
// still works.
func presignNeedsNoNetwork(b bench) {
	t := b.t
	_, err := b.PresignPut(canceled(t), objectstore.PutRequest{Key: "key", SizeBytes: 1, Expires: ttl})
	require.NoError(t, err)
	_, err = b.PresignGet(canceled(t), "key", objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err)
	_, err = b.PresignPart(canceled(t), "key", "upload", 1, 1, ttl)
	require.NoError(t, err)
}
