package objectstoretest

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// oddKey has the characters that go wrong when a key is escaped twice or not
// at all.
const oddKey = "in/a b+c/ü%41&=?#'()/source file.mp4"

func objectTests() map[string]func(bench) {
	return map[string]func(bench){
		"PutHeadGet":              putHeadGet,
		"PutReplaces":             putReplaces,
		"PutIfNoneMatch":          putIfNoneMatch,
		"PutIfMatch":              putIfMatch,
		"EmptyObject":             emptyObject,
		"OddKeys":                 oddKeys,
		"MissingObject":           missingObject,
		"EmptyKey":                emptyKey,
		"DeleteIsIdempotent":      deleteIsIdempotent,
		"DeletePrefix":            deletePrefix,
		"DeletePrefixNeedsPrefix": deletePrefixNeedsPrefix,
		"ListPages":               listPages,
		"ListStops":               listStops,
		"EndedContext":            endedContext,
	}
}

// putHeadGet: an object comes back as it was written, with its properties.
func putHeadGet(b bench) {
	t := b.t
	before := time.Now()
	const content = "#EXTM3U\n"
	require.NoError(t, b.Put(t.Context(), "out/master.m3u8", strings.NewReader(content), objectstore.PutOptions{
		ContentType: "application/vnd.apple.mpegurl", CacheControl: "no-cache",
	}))

	sum := md5.Sum([]byte(content))
	info, err := b.Head(t.Context(), "out/master.m3u8")
	require.NoError(t, err)
	require.WithinRange(t, info.LastModified, before.Add(-time.Minute), time.Now().Add(time.Minute))
	require.Equal(t, time.UTC, info.LastModified.Location())
	require.Equal(t, objectstore.ObjectInfo{
		Key: "out/master.m3u8", SizeBytes: int64(len(content)), ETag: hex.EncodeToString(sum[:]),
		ContentType: "application/vnd.apple.mpegurl", LastModified: info.LastModified,
	}, info)

	body, got, err := b.Get(t.Context(), "out/master.m3u8")
	require.NoError(t, err)
	require.NoError(t, body.Close())
	require.Equal(t, info, got)
	require.Equal(t, content, b.content("out/master.m3u8"))

	signed, err := b.PresignGet(t.Context(), "out/master.m3u8", objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err)
	require.Equal(t, "no-cache", b.send(signed, "").header.Get("Cache-Control"))
}

// putReplaces: a second write of a key wins.
func putReplaces(b bench) {
	t := b.t
	b.put("key", "first")
	b.put("key", "second")
	require.Equal(t, "second", b.content("key"))
}

// putIfNoneMatch: a write that wants a new key leaves an object alone.
func putIfNoneMatch(b bench) {
	t := b.t
	opts := objectstore.PutOptions{IfNoneMatch: true}
	require.NoError(t, b.Put(t.Context(), "key", strings.NewReader("first"), opts))
	err := b.Put(t.Context(), "key", strings.NewReader("second"), opts)
	require.ErrorIs(t, err, objectstore.ErrPrecondition)
	require.Equal(t, "first", b.content("key"))
}

// putIfMatch: a write that names the object it replaces leaves any other alone.
// The ETag of an object written by one PUT is its MD5.
func putIfMatch(b bench) {
	t := b.t
	put := func(body, etag string) error {
		return b.Put(t.Context(), "key", strings.NewReader(body), objectstore.PutOptions{IfMatch: etag})
	}
	etag := func(body string) string {
		sum := md5.Sum([]byte(body))
		return hex.EncodeToString(sum[:])
	}
	err := put("first", etag("none"))
	require.True(t, errors.Is(err, objectstore.ErrPrecondition) || errors.Is(err, objectstore.ErrNotFound), "%v", err)
	b.put("key", "first")
	require.ErrorIs(t, put("second", etag("other")), objectstore.ErrPrecondition)
	require.Equal(t, "first", b.content("key"))
	require.NoError(t, put("second", etag("first")))
	require.ErrorIs(t, put("third", etag("first")), objectstore.ErrPrecondition)
	require.Equal(t, "second", b.content("key"))
}

// emptyObject: zero bytes are an object like any other.
func emptyObject(b bench) {
	t := b.t
	b.put("empty", "")
	info, err := b.Head(t.Context(), "empty")
	require.NoError(t, err)
	require.Zero(t, info.SizeBytes)
	require.Empty(t, b.content("empty"))
}

// oddKeys: every method means the same object by a key that needs escaping.
func oddKeys(b bench) {
	t := b.t
	signedPut, err := b.PresignPut(t.Context(), objectstore.PutRequest{Key: oddKey, SizeBytes: 5, Expires: ttl})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, b.send(signedPut, "hello").status)

	info, err := b.Head(t.Context(), oddKey)
	require.NoError(t, err)
	require.Equal(t, oddKey, info.Key)
	require.Equal(t, "hello", b.content(oddKey))
	require.Equal(t, []string{oddKey}, b.keys("in/a b+c/"))

	signedGet, err := b.PresignGet(t.Context(), oddKey, objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err)
	require.Equal(t, "hello", b.send(signedGet, "").body)

	require.NoError(t, b.DeletePrefix(t.Context(), "in/a b+c/"))
	_, err = b.Head(t.Context(), oddKey)
	require.ErrorIs(t, err, objectstore.ErrNotFound)
}

// missingObject: what isn't there is ErrNotFound, with the key in the text.
func missingObject(b bench) {
	t := b.t
	_, err := b.Head(t.Context(), "in/missing")
	require.ErrorIs(t, err, objectstore.ErrNotFound)
	require.ErrorContains(t, err, "in/missing")
	_, _, err = b.Get(t.Context(), "in/missing")
	require.ErrorIs(t, err, objectstore.ErrNotFound)
	require.ErrorContains(t, err, "in/missing")
	require.NotErrorIs(t, err, objectstore.ErrUnavailable)

	signed, err := b.PresignGet(t.Context(), "in/missing", objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err, "signing doesn't look")
	require.Equal(t, http.StatusNotFound, b.send(signed, "").status)
}

// emptyKey: no method takes the bucket itself for an object.
func emptyKey(b bench) {
	t := b.t
	b.put("key", "kept")
	_, err := b.Head(t.Context(), "")
	require.Error(t, err)
	require.NotErrorIs(t, err, objectstore.ErrUnavailable, "it never gets better")
	require.Error(t, b.Put(t.Context(), "", strings.NewReader("x"), objectstore.PutOptions{}))
	require.Error(t, b.Delete(t.Context(), ""))
	_, err = b.PresignPut(t.Context(), objectstore.PutRequest{SizeBytes: 1, Expires: ttl})
	require.Error(t, err)
	require.Equal(t, []string{"key"}, b.keys(""))
}

// deleteIsIdempotent: deleting twice, or what never was, is no error.
func deleteIsIdempotent(b bench) {
	t := b.t
	b.put("out/key", "x")
	require.NoError(t, b.Delete(t.Context(), "out/key"))
	_, err := b.Head(t.Context(), "out/key")
	require.ErrorIs(t, err, objectstore.ErrNotFound)
	require.NoError(t, b.Delete(t.Context(), "out/key"))
	require.NoError(t, b.Delete(t.Context(), "never/was"))
}

// deletePrefix: everything below the prefix goes, whatever the number of
// pages, and nothing beside it.
func deletePrefix(b bench) {
	t := b.t
	for i := range 7 {
		b.put(fmt.Sprintf("out/job1/hls/%d.m4s", i), "x")
	}
	b.put("out/job1/master.m3u8", "x")
	b.put("out/job10/master.m3u8", "kept")
	require.NoError(t, b.DeletePrefix(t.Context(), "out/job1/"))
	require.Equal(t, []string{"out/job10/master.m3u8"}, b.keys(""))
	require.NoError(t, b.DeletePrefix(t.Context(), "out/job1/"), "nothing left is no error")
}

// deletePrefixNeedsPrefix: a forgotten prefix doesn't empty the bucket.
func deletePrefixNeedsPrefix(b bench) {
	t := b.t
	b.put("key", "kept")
	require.Error(t, b.DeletePrefix(t.Context(), ""))
	require.Equal(t, []string{"key"}, b.keys(""))
}

// listPages: a listing has each object once, in order, with size and ETag.
func listPages(b bench) {
	t := b.t
	want := make([]string, 0, 7)
	for i := range cap(want) {
		key := fmt.Sprintf("out/a/%d", i)
		b.put(key, strings.Repeat("x", i))
		want = append(want, key)
	}
	b.put("other", "x")
	var got []string
	require.NoError(t, b.List(t.Context(), "out/", func(object objectstore.ObjectInfo) error {
		require.EqualValues(t, len(got), object.SizeBytes)
		require.Len(t, object.ETag, hex.EncodedLen(md5.Size))
		require.False(t, object.LastModified.IsZero())
		got = append(got, object.Key)
		return nil
	}))
	require.Equal(t, want, got)
	require.Empty(t, b.keys("nothing/"))
}

// listStops: the visitor's error ends the listing and comes back as it is.
func listStops(b bench) {
	t := b.t
	for i := range 5 {
		b.put(fmt.Sprintf("key%d", i), "x")
	}
	errEnough := errors.New("enough")
	var visited int
	err := b.List(t.Context(), "", func(objectstore.ObjectInfo) error {
		if visited++; visited == 3 {
			return errEnough
		}
		return nil
	})
	require.Equal(t, errEnough, err)
	require.Equal(t, 3, visited)
}

// endedContext: a call ended by its caller says so and blames nobody else.
func endedContext(b bench) {
	t := b.t
	_, err := b.Head(canceled(t), "key")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, objectstore.ErrUnavailable)
	require.ErrorIs(t, b.List(canceled(t), "", nil), context.Canceled)
	require.ErrorIs(t, b.DeletePrefix(canceled(t), "out/"), context.Canceled)
}
