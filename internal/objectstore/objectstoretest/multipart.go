package objectstoretest

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

const partKey = "in/a b+c/source"

func multipartTests() map[string]func(bench) {
	return map[string]func(bench){
		"Multipart":                multipart,
		"MultipartIsInvisible":     multipartIsInvisible,
		"MultipartResumes":         multipartResumes,
		"MultipartWrongLength":     multipartWrongLength,
		"MultipartWrongParts":      multipartWrongParts,
		"MultipartSmallPart":       multipartSmallPart,
		"MultipartUnknown":         multipartUnknown,
		"MultipartAbort":           multipartAbort,
		"MultipartList":            multipartList,
		"MultipartCompleteReplay":  multipartCompleteReplay,
		"MultipartUploadsSeparate": multipartUploadsSeparate,
	}
}

func (b bench) createMultipart() string {
	t := b.t
	t.Helper()
	uploadID, err := b.CreateMultipart(t.Context(), partKey, objectstore.MultipartOptions{ContentType: "video/mp4", CacheControl: "max-age=60"})
	require.NoError(t, err)
	require.NotEmpty(t, uploadID)
	return uploadID
}

// putPart uploads a part and returns it with the ETag as the client gets it.
func (b bench) putPart(uploadID string, number int, body string) objectstore.Part {
	t := b.t
	t.Helper()
	signed, err := b.PresignPart(t.Context(), partKey, uploadID, number, int64(len(body)), ttl)
	require.NoError(t, err)
	require.Equal(t, http.MethodPut, signed.Method)
	got := b.send(signed, body)
	require.Equal(t, http.StatusOK, got.status, got.body)
	return objectstore.Part{Number: number, ETag: got.header.Get("ETag"), SizeBytes: int64(len(body))}
}

// multipart: parts uploaded by anybody become the object, in the order of
// their numbers, whatever the order of the list and the quotes of the ETags.
func multipart(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	first := strings.Repeat("x", int(objectstore.MinPartSizeBytes))
	part2 := b.putPart(uploadID, 2, "tail")
	part1 := b.putPart(uploadID, 1, first)
	part2.ETag = strings.Trim(part2.ETag, `"`)
	require.NoError(t, b.CompleteMultipart(t.Context(), partKey, uploadID, []objectstore.Part{part2, part1}))

	info, err := b.Head(t.Context(), partKey)
	require.NoError(t, err)
	require.EqualValues(t, len(first)+len("tail"), info.SizeBytes)
	require.Equal(t, "video/mp4", info.ContentType)
	require.True(t, strings.HasSuffix(info.ETag, "-2"), info.ETag)
	require.Equal(t, "tail", strings.TrimLeft(b.content(partKey), "x"), "parts out of order")

	signed, err := b.PresignGet(t.Context(), partKey, objectstore.GetOptions{Expires: ttl})
	require.NoError(t, err)
	require.Equal(t, "max-age=60", b.send(signed, "").header.Get("Cache-Control"))
}

// multipartIsInvisible: nothing shows before the upload is completed.
func multipartIsInvisible(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	b.putPart(uploadID, 1, "hello")
	_, err := b.Head(t.Context(), partKey)
	require.ErrorIs(t, err, objectstore.ErrNotFound)
	require.Empty(t, b.keys(""))
}

// multipartResumes: a client that lost its memory finds out which parts are
// there, on all pages, and may replace one.
func multipartResumes(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	parts, err := b.ListParts(t.Context(), partKey, uploadID)
	require.NoError(t, err)
	require.Empty(t, parts)

	var want []objectstore.Part
	b.putPart(uploadID, 3, "to be replaced")
	for number := 1; number <= 7; number++ {
		part := b.putPart(uploadID, number, strings.Repeat("x", number))
		part.ETag = strings.Trim(part.ETag, `"`)
		want = append(want, part)
	}
	parts, err = b.ListParts(t.Context(), partKey, uploadID)
	require.NoError(t, err)
	require.Equal(t, want, parts)
}

// multipartWrongLength: a part of another length than signed is refused, and
// so is one under another number.
func multipartWrongLength(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	signed, err := b.PresignPart(t.Context(), partKey, uploadID, 1, 5, ttl)
	require.NoError(t, err)
	requireRefused(t, b.send(signed, "hello!"))
	moved := signed
	moved.URL = strings.Replace(signed.URL, "partNumber=1", "partNumber=2", 1)
	require.NotEqual(t, signed.URL, moved.URL)
	requireRefused(t, b.send(moved, "hello"))
	parts, err := b.ListParts(t.Context(), partKey, uploadID)
	require.NoError(t, err)
	require.Empty(t, parts)
}

// multipartWrongParts: a list that doesn't match the uploaded parts is
// ErrInvalidPart and leaves the upload as it was, so the right list completes.
func multipartWrongParts(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	part := b.putPart(uploadID, 1, "hello")
	for name, parts := range map[string][]objectstore.Part{
		"empty":        nil,
		"missing part": {part, {Number: 2, ETag: part.ETag}},
		"other ETag":   {{Number: 1, ETag: `"00000000000000000000000000000000"`}},
		"no ETag":      {{Number: 1}},
		"twice":        {part, part},
		"number 0":     {{Number: 0, ETag: part.ETag}},
	} {
		err := b.CompleteMultipart(t.Context(), partKey, uploadID, parts)
		require.ErrorIs(t, err, objectstore.ErrInvalidPart, name)
		require.ErrorContains(t, err, partKey, name)
	}
	_, err := b.Head(t.Context(), partKey)
	require.ErrorIs(t, err, objectstore.ErrNotFound)
	require.NoError(t, b.CompleteMultipart(t.Context(), partKey, uploadID, []objectstore.Part{part}))
	require.Equal(t, "hello", b.content(partKey))
}

// multipartSmallPart: only the last part may be below the least size.
func multipartSmallPart(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	parts := []objectstore.Part{b.putPart(uploadID, 1, "too small"), b.putPart(uploadID, 2, "last")}
	err := b.CompleteMultipart(t.Context(), partKey, uploadID, parts)
	require.ErrorIs(t, err, objectstore.ErrInvalidPart)
}

// multipartUnknown: an id that isn't known is ErrUploadNotFound, not a missing
// object.
func multipartUnknown(b bench) {
	t := b.t
	const unknown = "0a1b2c3d-0000-4000-8000-000000000000"
	_, err := b.ListParts(t.Context(), partKey, unknown)
	require.ErrorIs(t, err, objectstore.ErrUploadNotFound)
	require.NotErrorIs(t, err, objectstore.ErrNotFound)
	err = b.CompleteMultipart(t.Context(), partKey, unknown, []objectstore.Part{{Number: 1, ETag: "00"}})
	require.ErrorIs(t, err, objectstore.ErrUploadNotFound)
	require.NoError(t, b.AbortMultipart(t.Context(), partKey, unknown))

	signed, err := b.PresignPart(t.Context(), partKey, unknown, 1, 5, ttl)
	require.NoError(t, err, "signing doesn't look")
	require.Equal(t, http.StatusNotFound, b.send(signed, "hello").status)
}

// multipartAbort: an aborted upload is gone with its parts; again is no error.
func multipartAbort(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	part := b.putPart(uploadID, 1, "hello")
	require.NoError(t, b.AbortMultipart(t.Context(), partKey, uploadID))
	_, err := b.ListParts(t.Context(), partKey, uploadID)
	require.ErrorIs(t, err, objectstore.ErrUploadNotFound)
	err = b.CompleteMultipart(t.Context(), partKey, uploadID, []objectstore.Part{part})
	require.ErrorIs(t, err, objectstore.ErrUploadNotFound)
	require.NoError(t, b.AbortMultipart(t.Context(), partKey, uploadID))
}

// multipartList: uploads are listed by prefix while they are neither completed
// nor aborted, however many there are.
func multipartList(b bench) {
	t := b.t
	const folder = "listed/"
	begin := func(key string) string {
		id, err := b.CreateMultipart(t.Context(), key, objectstore.MultipartOptions{})
		require.NoError(t, err)
		return id
	}
	list := func() map[string]string {
		found := map[string]string{}
		require.NoError(t, b.ListMultipart(t.Context(), folder, func(key, id string) error {
			found[id] = key
			return nil
		}))
		return found
	}
	want := map[string]string{}
	for _, name := range []string{"a", "a", "b", "c/d", "e"} {
		want[begin(folder+name)] = folder + name
	}
	begin("beside/a")
	require.Equal(t, want, list())
	for id, key := range want {
		require.NoError(t, b.AbortMultipart(t.Context(), key, id))
	}
	require.Empty(t, list())
	require.ErrorIs(t, b.ListMultipart(t.Context(), "beside/", func(string, string) error { return io.EOF }), io.EOF)
}

// multipartCompleteReplay: a caller that lost the answer asks again and learns
// one way or the other that the object is there; aborting then changes nothing.
func multipartCompleteReplay(b bench) {
	t := b.t
	uploadID := b.createMultipart()
	parts := []objectstore.Part{b.putPart(uploadID, 1, "hello")}
	require.NoError(t, b.CompleteMultipart(t.Context(), partKey, uploadID, parts))
	first, err := b.Head(t.Context(), partKey)
	require.NoError(t, err)

	if err := b.CompleteMultipart(t.Context(), partKey, uploadID, parts); err != nil {
		require.ErrorIs(t, err, objectstore.ErrUploadNotFound)
	}
	require.NoError(t, b.AbortMultipart(t.Context(), partKey, uploadID))
	again, err := b.Head(t.Context(), partKey)
	require.NoError(t, err)
	require.Equal(t, first.ETag, again.ETag)
	require.Equal(t, "hello", b.content(partKey))
}

// multipartUploadsSeparate: two uploads of one key don't see each other's
// parts, and an ended context is not taken for a fault of the store.
func multipartUploadsSeparate(b bench) {
	t := b.t
	one, two := b.createMultipart(), b.createMultipart()
	require.NotEqual(t, one, two)
	b.putPart(one, 1, "hello")
	parts, err := b.ListParts(t.Context(), partKey, two)
	require.NoError(t, err)
	require.Empty(t, parts)
	_, err = b.ListParts(canceled(t), partKey, one)
	require.ErrorIs(t, err, context.Canceled)
}
