package worker

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

const sourcePath = "/in/source"

// sourceBundle is a source in a store, and the loopback server before it.
type sourceBundle struct {
	store   *store
	content []byte
	grant   *grant
	source  *source
	client  *http.Client
	journal *journal
	pacing  transferPacing
}

func setupSource(t *testing.T, sizeBytes int) *sourceBundle {
	t.Helper()

	b := &sourceBundle{store: newStore(t), content: make([]byte, sizeBytes), pacing: testPacing()}
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(b.content)
	b.store.put(sourcePath, b.content)
	b.grant = newGrant(b.store.signGet(sourcePath))
	b.open(t, "")

	return b
}

// persist opens the source once more, for faults that are to be mended however
// slow the machine is.
func (b *sourceBundle) persist(t *testing.T) {
	t.Helper()

	b.pacing.patience = time.Minute
	b.open(t, "")
}

func (b *sourceBundle) open(t *testing.T, etag string) {
	t.Helper()

	journal, log := newJournal()
	b.journal = journal

	source, err := openSource(t.Context(),
		map[string]content{sourceName: newObject(b.store.client(t), b.grant, int64(len(b.content)), etag, b.pacing)}, log)
	require.NoError(t, err)
	t.Cleanup(source.close)

	b.source = source
	b.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// answer is what the loopback server said.
type answer struct {
	status        int
	contentLength int64
	header        http.Header
}

// read asks for a range as FFmpeg does, and returns what arrived.
func (b *sourceBundle) read(t *testing.T, method, byteRange string) (answer, []byte, error) {
	t.Helper()

	request, err := http.NewRequestWithContext(t.Context(), method, b.source.url(sourceName), nil)
	require.NoError(t, err)

	if byteRange != "" {
		request.Header.Set("Range", byteRange)
	}

	response, err := b.client.Do(request)
	require.NoError(t, err)

	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()

	return answer{response.StatusCode, response.ContentLength, response.Header}, body, err
}

// TestSourceRanges guarantees that FFmpeg sees the object byte for byte,
// whichever range it asks for, across window edges.
func TestSourceRanges(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 3<<20+17)
	size := len(b.content)

	for name, test := range map[string]struct {
		byteRange string
		from, to  int
		status    int
	}{
		"whole":         {"", 0, size, http.StatusOK},
		"open":          {"bytes=0-", 0, size, http.StatusPartialContent},
		"middle":        {"bytes=524280-1600000", 524280, 1600001, http.StatusPartialContent},
		"to the end":    {"bytes=3145000-", 3145000, size, http.StatusPartialContent},
		"past the end":  {"bytes=3145000-99999999", 3145000, size, http.StatusPartialContent},
		"suffix":        {"bytes=-100", size - 100, size, http.StatusPartialContent},
		"long suffix":   {"bytes=-99999999", 0, size, http.StatusPartialContent},
		"one byte":      {"bytes=0-0", 0, 1, http.StatusPartialContent},
		"huge end":      {"bytes=5-9223372036854775807", 5, size, http.StatusPartialContent},
		"many: ignored": {"bytes=0-1,5-6", 0, size, http.StatusOK},
		"odd: ignored":  {"lines=0-1", 0, size, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			response, body, err := b.read(t, http.MethodGet, test.byteRange)
			require.NoError(t, err)
			require.Equal(t, test.status, response.status)
			require.True(t, bytes.Equal(b.content[test.from:test.to], body))
			require.EqualValues(t, test.to-test.from, response.contentLength)
		})
	}

	t.Run("beyond", func(t *testing.T) {
		t.Parallel()

		response, _, err := b.read(t, http.MethodGet, "bytes=99999999-")
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestedRangeNotSatisfiable, response.status)
	})

	t.Run("head", func(t *testing.T) {
		t.Parallel()

		response, _, err := b.read(t, http.MethodHead, "")
		require.NoError(t, err)
		require.EqualValues(t, size, response.contentLength)
		require.Equal(t, "bytes", response.header.Get("Accept-Ranges"))
	})
}

// TestSourceSecret guarantees that only who knows the task's path reads its
// source, and only by GET and HEAD.
func TestSourceSecret(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 10)
	base := b.source.base
	address, err := url.Parse(base)
	require.NoError(t, err)

	b.source.base = "http://" + address.Host + "/"
	response, _, err := b.read(t, http.MethodGet, "")
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, response.status)

	b.source.base = base
	response, _, err = b.read(t, http.MethodPut, "")
	require.NoError(t, err)
	require.Equal(t, http.StatusMethodNotAllowed, response.status)
	require.Empty(t, b.store.ranges())
}

// TestSourceSeeksCheaply guarantees that a reader which looks at the head and
// seeks to the tail, as for an MP4 with its index last, costs the store little.
func TestSourceSeeksCheaply(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 32<<20)

	_, body, err := b.read(t, http.MethodGet, "bytes=33000000-")
	require.NoError(t, err)
	require.True(t, bytes.Equal(b.content[33000000:], body))
	require.Equal(t, []string{"bytes=33000000-33524287", "bytes=33524288-33554431"}, b.store.ranges())
}

// TestSourceResumes guarantees that connections which break, stall or refuse
// in the middle are taken up where they ended, without a byte more or less.
func TestSourceResumes(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 2<<20)
	b.persist(t)

	var requests atomic.Int32

	stalled := make(chan struct{})

	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		switch requests.Add(1) {
		case 1: // breaks in the middle
			w.Header().Set("Content-Range", "bytes 0-524287/2097152")
			w.Header().Set("Content-Length", "524288")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b.content[:100_000])

			panic(http.ErrAbortHandler)
		case 2:
			http.Error(w, "SlowDown", http.StatusServiceUnavailable)

			return true
		case 3: // breaks before the answer
			connection, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = connection.Close()
			}

			return true
		case 4: // keeps the connection and says nothing
			defer close(stalled)
			<-r.Context().Done()

			return true
		default:
			return false
		}
	})

	_, body, err := b.read(t, http.MethodGet, "bytes=0-")
	require.NoError(t, err)
	require.True(t, bytes.Equal(b.content, body))
	require.NoError(t, b.source.transferError(), "what was mended is no error")
	<-stalled
}

// TestSourceRenewed guarantees that an expired URL is replaced by the fresh one
// in the middle of a read.
func TestSourceRenewed(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 4<<20)
	b.persist(t)

	var refused atomic.Int32

	b.store.interfere(func(_ http.ResponseWriter, r *http.Request) bool {
		// The first window is read, then everything signed so far has expired, and
		// the fresh URL comes only after the store has refused the old one twice.
		if r.Header.Get("Range") != "bytes=0-524287" {
			switch refused.Add(1) {
			case 1:
				b.store.expire()
			case 3:
				b.grant.replace(b.store.signGet(sourcePath))
			}
		}

		return false
	})

	_, body, err := b.read(t, http.MethodGet, "bytes=0-")
	require.NoError(t, err)
	require.True(t, bytes.Equal(b.content, body))
	require.NoError(t, b.source.transferError())
	require.GreaterOrEqual(t, refused.Load(), int32(3))
}

// TestSourceFaults guarantees that what can't be mended is told apart: whose
// fault it is and why, and that FFmpeg doesn't take it for the end of the file.
func TestSourceFaults(t *testing.T) {
	t.Parallel()

	status := func(code int) func(*sourceBundle) {
		return func(b *sourceBundle) {
			b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
				if code == http.StatusFound {
					http.Redirect(w, r, "/elsewhere", code)
				} else {
					http.Error(w, "", code)
				}

				return true
			})
		}
	}

	for name, test := range map[string]struct {
		arrange func(*sourceBundle)
		class   tcoderv1.FaultClass
		reason  tcoderv1.ErrorReason
	}{
		"gone": {
			status(http.StatusNotFound),
			tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING,
		},
		"store down": {
			status(http.StatusInternalServerError),
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"expired and never renewed": {
			func(b *sourceBundle) { b.store.expire() },
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"redirect": {
			status(http.StatusFound),
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"nobody there": {
			func(b *sourceBundle) { b.store.fall() },
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"not a store": {
			func(b *sourceBundle) { b.grant.replace(&tcoderv1.SignedRequest{Url: "file:///etc/hostname"}) },
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"other size": {
			func(b *sourceBundle) { b.store.put(sourcePath, b.content[1:]) },
			tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setupSource(t, 1<<20)
			require.NoError(t, b.source.transferError())
			test.arrange(b)

			response, _, err := b.read(t, http.MethodGet, "bytes=0-")
			require.NoError(t, err)
			require.Equal(t, http.StatusBadGateway, response.status)

			var fault *ffmpeg.Fault

			require.ErrorAs(t, b.source.transferError(), &fault)
			require.Equal(t, test.class, fault.Class)
			require.Equal(t, test.reason, fault.Reason)
			require.NotContains(t, fault.Message+fault.Log+b.journal.String(), secret)
		})
	}
}

// TestSourceReplaced guarantees that bytes of two versions of an object are
// never mixed, whether the first one is known beforehand or not.
func TestSourceReplaced(t *testing.T) {
	t.Parallel()

	for name, known := range map[string]bool{"known from the start": true, "pinned by the first answer": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setupSource(t, 1<<20)
			if known {
				b.open(t, strings.Trim(b.store.etags[sourcePath], `"`)) // quotes are the header's
			}

			_, _, err := b.read(t, http.MethodGet, "bytes=0-99")
			require.NoError(t, err)

			other := bytes.Clone(b.content)
			other[len(other)-1]++
			b.store.put(sourcePath, other)

			response, _, err := b.read(t, http.MethodGet, "bytes=100-")
			require.NoError(t, err)
			require.Equal(t, http.StatusBadGateway, response.status)

			var fault *ffmpeg.Fault

			require.ErrorAs(t, b.source.transferError(), &fault)
			require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_INPUT, fault.Class)
		})
	}
}

// TestSourceLostInTheMiddle guarantees that a read which breaks for good after
// some bytes reaches FFmpeg as a broken body.
func TestSourceLostInTheMiddle(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 2<<20)
	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "bytes=0-524287" {
			return false
		}

		http.Error(w, "", http.StatusInternalServerError)

		return true
	})

	_, body, err := b.read(t, http.MethodGet, "bytes=0-")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.True(t, bytes.Equal(b.content[:512<<10], body))
	require.Error(t, b.source.transferError())
}

// TestSourceAbandoned guarantees that a reader which leaves because it has
// enough is no error, and one that leaves while the store fails it is.
func TestSourceAbandoned(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 8<<20)
	visit := func() {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.source.url(sourceName), nil)
		require.NoError(t, err)

		// The source answers with the first byte, so a store that fails must be left
		// by a deadline.
		client := &http.Client{Transport: b.client.Transport, Timeout: 200 * time.Millisecond}

		response, err := client.Do(request)
		if err == nil {
			_, _ = io.CopyN(io.Discard, response.Body, 1000)
			_ = response.Body.Close()
		}
	}

	visit()
	b.source.close() // waits for what it still does
	require.NoError(t, b.source.transferError())

	b.open(t, "")
	b.store.interfere(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "", http.StatusInternalServerError)

		return true
	})
	visit()
	b.source.close()
	require.Error(t, b.source.transferError())
}

// TestSourceSlowReader guarantees that a reader slower than the stall timeout
// doesn't count as a stall of the store.
func TestSourceSlowReader(t *testing.T) {
	t.Parallel()

	b := setupSource(t, 16<<20)

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.source.url(sourceName), nil)
	require.NoError(t, err)

	response, err := b.client.Do(request)
	require.NoError(t, err)

	defer response.Body.Close() //nolint:errcheck // nothing was written

	// Nothing is read until the store has been kept waiting for twice its stall
	// timeout and all buffers are full.
	timer := time.NewTimer(2 * testPacing().stall)
	<-timer.C

	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b.content, body))
	require.NoError(t, b.source.transferError())
}
