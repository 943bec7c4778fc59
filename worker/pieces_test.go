package worker

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// setupPieces is a store with a number of pieces, what they are together, and
// a signer of reads.
func setupPieces(t *testing.T, count int) (s *store, p *pieces, whole []byte) {
	t.Helper()

	s = newStore(t)
	random := rand.NewChaCha8([32]byte{1})

	var list []*tcoderv1.Piece

	for i := range count {
		content := make([]byte, 1000+i)
		_, _ = random.Read(content)

		piece := &tcoderv1.Piece{Name: fmt.Sprintf("%02d", i), SizeBytes: uint64(len(content))}
		s.put("/"+piece.GetName(), content)

		list = append(list, piece)
		whole = append(whole, content...)
	}

	sign := func(_ context.Context, objects []*tcoderv1.EncodedObject) (requests []*tcoderv1.SignedRequest, err error) {
		for _, object := range objects {
			requests = append(requests, s.signGet("/"+object.GetName()))
		}

		return requests, nil
	}

	pacing := testPacing()
	pacing.stall, pacing.patience = time.Minute, time.Minute // however slow the machine is

	return s, newPieces(s.client(t), sign, pacing, list), whole
}

// TestPiecesAhead guarantees that segments are on their way before their
// reader comes to them, not more than a few, and arrive in order; and that one
// that is gone is found out only when it is its turn.
func TestPiecesAhead(t *testing.T) {
	t.Parallel()

	const count = 80

	s, p, whole := setupPieces(t, count)

	var (
		mu         sync.Mutex
		open, most int
	)

	asked := map[string]chan struct{}{}
	for i := range count {
		asked[fmt.Sprintf("/%02d", i)] = make(chan struct{})
	}

	// No piece is answered before the next one was asked for.
	s.interfere(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		open++
		most = max(most, open)
		close(asked[r.URL.Path])
		mu.Unlock()

		var at int

		_, err := fmt.Sscanf(r.URL.Path, "/%d", &at)
		if next := asked[fmt.Sprintf("/%02d", at+1)]; err == nil && next != nil {
			<-next
		}

		mu.Lock()
		open--
		mu.Unlock()

		return false
	})

	var got bytes.Buffer

	keep := func(block []byte) error {
		got.Write(block)

		return nil
	}
	require.NoError(t, p.read(t.Context(), 500, p.size()-700, keep))
	require.Equal(t, whole[500:len(whole)-700], got.Bytes())
	require.LessOrEqual(t, most, 1+aheadPieces)
	require.Greater(t, most, 1)

	s.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		gone := r.URL.Path == "/03"
		if gone {
			http.NotFound(w, r)
		}

		return gone
	})
	got.Reset()
	require.Error(t, p.read(t.Context(), 0, p.size(), keep))
	require.Equal(t, whole[:p.starts[3]], got.Bytes())
}

// TestPiecesReach guarantees that what is fetched ahead is bounded in number
// and bytes, and that no piece is too large to be read.
func TestPiecesReach(t *testing.T) {
	t.Parallel()

	const mib = 1 << 20

	for name, test := range map[string]struct {
		mib   []uint64
		end   int
		reach int
	}{
		"few":                   {[]uint64{1, 1, 1, 1, 1, 1, 1}, 7, 1 + aheadPieces},
		"no further than asked": {[]uint64{1, 1, 1, 1, 1, 1, 1}, 3, 3},
		"small enough together": {[]uint64{6, 6, 4, 1, 1}, 5, 3},
		"the next is large":     {[]uint64{1, 16, 1, 1, 1}, 5, 1},
		"itself is large":       {[]uint64{99, 1, 1, 1, 1}, 5, 1},
		"the last":              {[]uint64{1}, 1, 1},
	} {
		var list []*tcoderv1.Piece
		for _, size := range test.mib {
			list = append(list, &tcoderv1.Piece{SizeBytes: size * mib})
		}

		require.Equal(t, test.reach, newPieces(nil, nil, transferPacing{}, list).reach(0, test.end), name)
	}
}
