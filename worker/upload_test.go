package worker

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestUploadTrouble guarantees that uploads survive a store that is busy,
// breaks connections, loses its answers and lets signatures expire.
func TestUploadTrouble(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))

	var puts atomic.Int32

	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}

		switch puts.Add(1) {
		case 1, 2:
			http.Error(w, "SlowDown", http.StatusServiceUnavailable)

			return true
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			http.Error(w, "AccessDenied: Request has expired", http.StatusForbidden)

			return true
		default:
			return false
		}
	})

	asked := 0
	b.onSign = func([]*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
		if asked++; asked == 1 {
			return nil, &signRefusedError{failure: &tcoderv1.Failure{
				Reason: tcoderv1.ErrorReason_ERROR_REASON_OBJECT_STORE_UNAVAILABLE,
			}}
		}

		return nil, nil
	}

	b.requireStored(t, b.do(t, t.Context(), b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)))
}

// TestUploadRefused guarantees that an upload which can't succeed ends the
// encode at once.
func TestUploadRefused(t *testing.T) {
	t.Parallel()

	for name, arrange := range map[string]func(b *workBundle){
		"by the store": func(b *workBundle) {
			b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					http.Error(w, "MethodNotAllowed", http.StatusMethodNotAllowed)
				}

				return r.Method == http.MethodPut
			})
		},
		"by each signature": func(b *workBundle) {
			b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)
				}

				return r.Method == http.MethodPut
			})
		},
		"by the control plane": func(b *workBundle) {
			b.onSign = func([]*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
				return nil, &signRefusedError{failure: &tcoderv1.Failure{
					Reason: tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
				}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setupWork(t, mediatest.Clip(t, mediatest.Film))
			arrange(b)

			fault := b.do(t, t.Context(), b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)).GetFault()
			require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, fault.GetClass())
			require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, fault.GetFailure().GetReason())
			require.NotContains(t, fault.GetFailure().GetMessage(), "http")
		})
	}
}

// TestUploaderBatches guarantees that a heap of small files is signed in a few
// messages, with never more than four uploads at a time.
func TestUploaderBatches(t *testing.T) {
	t.Parallel()

	const files = 100

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir := t.TempDir()

	var running, most, messages atomic.Int32

	b.store.interfere(func(_ http.ResponseWriter, _ *http.Request) bool {
		n := running.Add(1)
		defer running.Add(-1)

		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}

		return false
	})

	b.onSign = func([]*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
		messages.Add(1)

		return nil, nil
	}

	uploads := newUploader(b.store.client(t), b.sign, &backlog{dir: dir}, testPacing(), func(err error) { t.Error(err) }, func(string) {})

	for i := range files {
		name := fmt.Sprintf("%05d.m4s", i)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, i), 0o600)) // the first is empty
		uploads.add(&tcoderv1.EncodedObject{Name: name, SizeBytes: uint64(i), ContentType: "video/iso.segment"})
	}

	uploads.close()
	require.NoError(t, uploads.run(t.Context()))
	require.Len(t, b.store.written(), files)
	require.LessOrEqual(t, messages.Load(), int32(4))
	require.LessOrEqual(t, most.Load(), int32(uploadParallel))
}

// TestUploaderChangedFile guarantees that a file which isn't what was measured
// is never taken for a result.
func TestUploaderChangedFile(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.mp4"), []byte("12345"), 0o600))

	told := make(chan error, 1)
	uploads := newUploader(b.store.client(t), b.sign, &backlog{dir: dir}, testPacing(), func(err error) { told <- err }, func(string) {})
	uploads.add(&tcoderv1.EncodedObject{Name: "a.mp4", SizeBytes: 4})

	var fault *ffmpeg.Fault

	require.ErrorAs(t, uploads.run(t.Context()), &fault)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, fault.Reason)
	require.ErrorIs(t, <-told, fault)
	require.Empty(t, b.store.written())
}

// TestUploaderLink guarantees that a result which leads out of the attempt's
// folder is not uploaded, though it has the size that was told.
func TestUploaderLink(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "a.mp4")
	require.NoError(t, os.WriteFile(elsewhere, []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(dir, "a.mp4")))

	uploads := newUploader(b.store.client(t), b.sign, &backlog{dir: dir}, testPacing(), func(error) {}, func(string) {})
	uploads.add(&tcoderv1.EncodedObject{Name: "a.mp4", SizeBytes: 6})

	var fault *ffmpeg.Fault

	require.ErrorAs(t, uploads.run(t.Context()), &fault)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, fault.Reason)
	require.Empty(t, b.store.written())
}

// TestUploaderLostAnswer guarantees that an upload whose success was not heard
// of is no failure when the store refuses to write the object twice.
func TestUploaderLostAnswer(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.mp4"), []byte("12345"), 0o600))

	var tries atomic.Int32

	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}

		http.Error(w, "PreconditionFailed", http.StatusPreconditionFailed)

		return true
	})

	uploads := newUploader(b.store.client(t), b.sign, &backlog{dir: dir}, testPacing(), func(error) {}, func(string) {})
	uploads.add(&tcoderv1.EncodedObject{Name: "a.mp4", SizeBytes: 5})
	uploads.close()
	require.NoError(t, uploads.run(t.Context()))
	require.EqualValues(t, 2, tries.Load())
}

// TestScrub guarantees that an error of net/http loses its URL.
func TestScrub(t *testing.T) {
	t.Parallel()

	client := newStoreClient()
	defer client.CloseIdleConnections()

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:1/?"+secret+"=1", nil)
	require.NoError(t, err)

	response, err := client.Do(request)
	if err == nil {
		_ = response.Body.Close()
	}

	require.ErrorContains(t, err, secret)
	require.NotContains(t, scrub(fmt.Errorf("try 1: %w", err)).Error(), secret)
	require.Equal(t, "plain", scrub(errors.New("plain")).Error())
}
