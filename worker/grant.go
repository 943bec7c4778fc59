package worker

import (
	"sync"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// grant is the right to read one source: a signed request that is replaced by
// a fresh one before, or after, it expires.
type grant struct {
	mu       sync.Mutex
	request  *tcoderv1.SignedRequest
	replaced chan struct{}
}

func newGrant(request *tcoderv1.SignedRequest) *grant {
	return &grant{request: request, replaced: make(chan struct{})}
}

// current returns the newest request, and a channel that is closed as soon as
// there is a newer one.
func (g *grant) current() (*tcoderv1.SignedRequest, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()

	return g.request, g.replaced
}

// replace swaps in a fresh request; nil changes nothing.
func (g *grant) replace(request *tcoderv1.SignedRequest) {
	if request == nil {
		return
	}

	g.mu.Lock()
	defer g.mu.Unlock()

	g.request = request
	close(g.replaced)
	g.replaced = make(chan struct{})
}
