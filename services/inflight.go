package services

import (
	"net/http"
	"sync"
)

// inFlight counts the calls that are being served. A sync.WaitGroup may not
// be added to while it is waited for; calls come when they like.
type inFlight struct {
	mu    sync.Mutex
	calls int
	idles []chan struct{}
}

// count counts what next serves.
func (f *inFlight) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.add(1)
		defer f.add(-1)
		next.ServeHTTP(w, r)
	})
}

func (f *inFlight) add(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls += n
	if f.calls == 0 {
		for _, idle := range f.idles {
			close(idle)
		}
		f.idles = nil
	}
}

// idle returns a channel that is closed as soon as no call is being served.
func (f *inFlight) idle() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	idle := make(chan struct{})
	if f.calls == 0 {
		close(idle)
	} else {
		f.idles = append(f.idles, idle)
	}

	return idle
}
