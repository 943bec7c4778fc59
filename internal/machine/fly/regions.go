package fly

import (
	"slices"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// regions remembers which regions had no room: they are asked last for a
// while, and those whose quota is spent not at all as long as there are others.
type regions struct {
	memory time.Duration

	mu   sync.Mutex
	full map[string]fullRegion
}

type fullRegion struct {
	until time.Time
	why   *machine.Error
}

// order returns the regions to ask, in order, of those that are wanted.
func (r *regions) order(wanted []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first, last []string
	for _, region := range wanted {
		full, is := r.of(region)
		switch {
		case !is:
			first = append(first, region)
		case full.why.Class != machine.Quota:
			last = append(last, region)
		}
	}
	if len(first)+len(last) == 0 {
		return slices.Clone(wanted)
	}
	return slices.Concat(first, last)
}

// of returns what is remembered of a region.
func (r *regions) of(region string) (fullRegion, bool) {
	full, is := r.full[region]
	return full, is && time.Now().Before(full.until)
}

// spent remembers that the quota of a region is spent.
func (r *regions) spent(region string, why *machine.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full[region] = fullRegion{time.Now().Add(r.memory), why}
}

// made remembers what the place of a machine tells: those asked before had no
// room. It returns why each region that was preferred to it was passed over.
func (r *regions) made(place string, wanted, asked []string) map[string]*machine.Error {
	at, turn := slices.Index(wanted, place), slices.Index(asked, place)
	if at < 0 || turn < 0 {
		return nil // Fly chose, or the request named a continent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.full, place)
	for _, region := range asked[:turn] {
		why := &machine.Error{Class: machine.RegionFull, Message: "Fly has no room for a machine in " + region + ": it was made in " + place + "."}
		r.full[region] = fullRegion{time.Now().Add(r.memory), why}
	}
	passed := map[string]*machine.Error{}
	for _, region := range wanted[:at] {
		if full, is := r.of(region); is {
			passed[region] = full.why
		}
	}
	return passed
}
