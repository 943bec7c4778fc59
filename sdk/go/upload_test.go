package tcoder_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// noise is a source without repetition, so that swapped bytes are noticed.
func noise(size int) []byte {
	random := rand.NewChaCha8([32]byte{1})
	b := make([]byte, size)
	_, _ = random.Read(b)

	return b
}

// serveUploads scripts an upload service that takes sources in one PUT, or in
// parts of partSize if it is not 0.
func (s *server) serveUploads(t *testing.T, partSize int) {
	t.Helper()
	upload := &tcoderv1.Upload{Id: "u", JobId: "j", State: tcoderv1.UploadState_UPLOAD_STATE_OPEN}
	s.createUpload = func(r *tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error) {
		upload.Filename, upload.SizeBytes = r.GetFilename(), r.GetSizeBytes()
		if partSize == 0 {
			return &tcoderv1.CreateUploadResponse{Upload: upload, Put: s.store.sign(http.MethodPut, "whole")}, nil
		}
		upload.PartSizeBytes = uint64(partSize)
		upload.PartCount = uint32((int(r.GetSizeBytes()) + partSize - 1) / partSize)

		return &tcoderv1.CreateUploadResponse{Upload: upload, Parts: s.signedParts([]uint32{1, 2})}, nil
	}
	s.signParts = func(r *tcoderv1.SignUploadPartsRequest) (*tcoderv1.SignUploadPartsResponse, error) {
		return &tcoderv1.SignUploadPartsResponse{Parts: s.signedParts(r.GetPartNumbers())}, nil
	}
	s.completeUpload = func(r *tcoderv1.CompleteUploadRequest) (*tcoderv1.CompleteUploadResponse, error) {
		for i, part := range r.GetParts() {
			require.Equal(t, uint32(i+1), part.GetPartNumber())
			require.Equal(t, etagOf(s.store.object(partKey(part.GetPartNumber()))), part.GetEtag())
		}

		return &tcoderv1.CompleteUploadResponse{Upload: upload, Job: &tcoderv1.Job{Id: "j"}}, nil
	}
}

func partKey(number uint32) string { return fmt.Sprintf("part-%d", number) }

func (s *server) signedParts(numbers []uint32) []*tcoderv1.SignedPart {
	var parts []*tcoderv1.SignedPart
	for _, number := range numbers {
		parts = append(parts, &tcoderv1.SignedPart{
			PartNumber: number, Request: s.store.sign(http.MethodPut, partKey(number)),
		})
	}

	return parts
}

// joined is what the store holds of a multipart upload.
func (s *server) joined(parts int) []byte {
	var all []byte
	for number := range parts {
		all = append(all, s.store.object(partKey(uint32(number+1)))...)
	}

	return all
}

// watchProgress returns a callback and a check that it rose to the total.
func watchProgress(t *testing.T) (callback func(done, total int64), check func(total int)) {
	t.Helper()
	var mu sync.Mutex
	last, of := int64(-1), int64(-1)

	return func(done, total int64) {
			mu.Lock()
			defer mu.Unlock()
			if done <= last || done > total {
				t.Errorf("progress went from %d to %d of %d", last, done, total)
			}
			last, of = done, total
		}, func(total int) {
			require.Equal(t, int64(total), last)
			require.Equal(t, int64(total), of)
		}
}

// A small file goes in one request, straight to the store, without the API key.
func TestUploadFileInOnePut(t *testing.T) {
	t.Parallel()
	s, client := newServer(t, tcoder.WithAPIKey("secret"))
	s.serveUploads(t, 0)
	source := noise(100_000)
	path := filepath.Join(t.TempDir(), "clip.mp4")
	require.NoError(t, os.WriteFile(path, source, 0o600))
	progress, reached := watchProgress(t)
	var opened string

	result, err := client.UploadFile(t.Context(), path, tcoder.UploadOptions{
		OnProgress: progress, OnOpen: func(u *tcoderv1.Upload) { opened = u.GetJobId() },
	})

	require.NoError(t, err)
	require.Equal(t, "j", result.Job.GetId())
	require.Equal(t, "j", opened)
	require.Equal(t, "clip.mp4", result.Upload.GetFilename())
	require.Equal(t, source, s.store.object("whole"))
	require.Empty(t, s.store.headers[0].Get("Authorization"))
	reached(len(source))
}

// A large file goes in parts; the signatures that are missing are asked for.
func TestUploadInParts(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 10_000)
	source := noise(495_001)
	progress, reached := watchProgress(t)

	_, err := client.Upload(t.Context(), bytes.NewReader(source), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: int64(len(source)), OnProgress: progress,
	})

	require.NoError(t, err)
	require.True(t, bytes.Equal(source, s.joined(50)))
	reached(len(source))
}

// A store that fails now and then gets the same bytes again.
func TestUploadOutlivesStoreFailures(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 10_000)
	var requests atomic.Int32
	s.store.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		switch requests.Add(1) % 4 {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			_, _ = io.CopyN(io.Discard, r.Body, 3_000)
			panic(http.ErrAbortHandler) // the connection breaks in the middle
		default:
			return false
		}

		return true
	}
	source := noise(95_001)
	progress, reached := watchProgress(t)

	_, err := client.Upload(t.Context(), bytes.NewReader(source), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: int64(len(source)), OnProgress: progress,
	})

	require.NoError(t, err)
	require.True(t, bytes.Equal(source, s.joined(10)))
	reached(len(source))
}

// Requests that have expired are signed again, whole files and parts alike.
func TestUploadSignsAgainAfterExpiry(t *testing.T) {
	t.Parallel()
	for _, partSize := range []int{0, 10_000} {
		s, client := newServer(t)
		s.serveUploads(t, partSize)
		create := s.createUpload
		var keys []string
		s.createUpload = func(r *tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error) {
			keys = append(keys, r.GetIdempotencyKey())
			res, err := create(r)
			if len(keys) == 1 && res.GetPut() != nil {
				s.store.expire(res.GetPut())
			}
			if len(keys) == 1 && res.GetPut() == nil {
				s.store.expire(res.GetParts()[0].GetRequest())
				res.GetParts()[1].GetRequest().ExpiresAt = timestamppb.New(time.Now().Add(-time.Minute))
				s.store.expire(res.GetParts()[1].GetRequest())
			}

			return res, err
		}
		source := noise(25_000)

		_, err := client.Upload(t.Context(), bytes.NewReader(source), tcoder.UploadOptions{
			Filename: "clip.mp4", SizeBytes: int64(len(source)),
		})

		require.NoError(t, err)
		require.NotEmpty(t, keys[0])
		if partSize == 0 {
			require.Equal(t, []string{keys[0], keys[0]}, keys)
			require.True(t, bytes.Equal(source, s.store.object("whole")))
		} else {
			require.True(t, bytes.Equal(source, s.joined(3)))
		}
	}
}

// A store that means its refusal ends the upload with a typed error that
// holds no URL.
func TestUploadRefusedByTheStore(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 10_000)
	s.store.intercept = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>SignatureDoesNotMatch</Code></Error>")

		return true
	}

	_, err := client.Upload(t.Context(), bytes.NewReader(noise(50_000)), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: 50_000,
	})

	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OBJECT_STORE_UNAVAILABLE, tcoder.ReasonOf(err))
	require.ErrorContains(t, err, "403 SignatureDoesNotMatch")
	require.NotContains(t, err.Error(), "token=")
	require.Less(t, len(s.store.seen()), 20)
}

// A call with the key of an earlier one sends what the store lacks, and what
// is no longer what the source has.
func TestUploadResumes(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 10_000)
	source := noise(45_000)
	s.store.put(partKey(1), source[:10_000])
	s.store.put(partKey(2), noise(10_000)[1:])     // too short
	s.store.put(partKey(3), source[10_000:20_000]) // another file's
	s.store.put(partKey(5), source[40_000:])       // the short last one
	s.getUpload = func(*tcoderv1.GetUploadRequest) (*tcoderv1.GetUploadResponse, error) {
		res := &tcoderv1.GetUploadResponse{}
		for _, number := range []uint32{1, 2, 3, 5} {
			body := s.store.object(partKey(number))
			res.Parts = append(res.Parts, &tcoderv1.UploadedPart{
				PartNumber: number, Etag: etagOf(body), SizeBytes: uint64(len(body)),
			})
		}

		return res, nil
	}
	progress, reached := watchProgress(t)

	_, err := client.Upload(t.Context(), bytes.NewReader(source), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: int64(len(source)), IdempotencyKey: "mine", OnProgress: progress,
	})

	require.NoError(t, err)
	require.True(t, bytes.Equal(source, s.joined(5)))
	require.ElementsMatch(t, []string{"PUT part-2", "PUT part-3", "PUT part-4"}, s.store.seen())
	reached(len(source))
}

// An upload that is complete already gives its job and sends nothing.
func TestUploadOfACompletedKey(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 0)
	s.createUpload = func(*tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error) {
		return &tcoderv1.CreateUploadResponse{
			Upload: &tcoderv1.Upload{Id: "u", JobId: "j", State: tcoderv1.UploadState_UPLOAD_STATE_COMPLETED},
		}, nil
	}

	result, err := client.Upload(t.Context(), strings.NewReader("x"), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: 1, IdempotencyKey: "mine",
	})

	require.NoError(t, err)
	require.Equal(t, "j", result.Job.GetId())
	require.Empty(t, s.store.seen())
}

// A single PUT whose answer was lost is refused the second time because the
// object is there; that is a success.
func TestUploadTakesAnExistingObjectAsSent(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 0)
	var requests atomic.Int32
	s.store.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if requests.Add(1) == 1 {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusPreconditionFailed)

		return true
	}

	_, err := client.Upload(t.Context(), strings.NewReader("film"), tcoder.UploadOptions{Filename: "a.mp4", SizeBytes: 4})

	require.NoError(t, err)
}

// What can't be a video is refused before any call.
func TestUploadFileRefusesBadFiles(t *testing.T) {
	t.Parallel()
	_, client := newServer(t)
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.mp4")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for path, reason := range map[string]tcoderv1.ErrorReason{
		empty:                            tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID,
		dir:                              tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID,
		filepath.Join(dir, "absent.mp4"): tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID,
		os.DevNull:                       tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID,
	} {
		_, err := client.UploadFile(t.Context(), path, tcoder.UploadOptions{})
		require.Equal(t, reason, tcoder.ReasonOf(err), path)
		require.Equal(t, reason, tcoder.ReasonOf(tcoder.CheckFile(path)), path)
	}
	_, err := client.Upload(t.Context(), strings.NewReader(""), tcoder.UploadOptions{Filename: "a.mp4"})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID, tcoder.ReasonOf(err))
}

// A source that shrinks while it is sent fails at once, not as a bad network.
func TestUploadOfAShrinkingSource(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 10_000)

	_, err := client.Upload(t.Context(), bytes.NewReader(noise(35_000)), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: 40_000,
	})

	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID, tcoder.ReasonOf(err))
}

// A refusal to open the upload reaches the caller as it is.
func TestUploadRefusedByTheServer(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.createUpload = func(*tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error) {
		return nil, refuse(t, connect.CodeInvalidArgument,
			&tcoderv1.ErrorDetail{Reason: tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_PRESET})
	}

	_, err := client.Upload(t.Context(), strings.NewReader("x"), tcoder.UploadOptions{Filename: "a.mp4", SizeBytes: 1})

	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_UNKNOWN_PRESET, tcoder.ReasonOf(err))
}

// The end of the caller's context ends an upload in the middle of its bytes.
func TestUploadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveUploads(t, 10_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.store.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()

		return true
	}

	_, err := client.Upload(ctx, bytes.NewReader(noise(50_000)), tcoder.UploadOptions{
		Filename: "clip.mp4", SizeBytes: 50_000,
	})

	require.ErrorIs(t, err, context.Canceled)
}
