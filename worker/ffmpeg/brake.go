package ffmpeg

import (
	"sync"
	"syscall"
)

// Brake stops and continues the process of an encode: a stopped one takes no
// processor time, writes nothing, and isn't taken for one that hangs. It can
// be ended like any other. The zero value is released. A Brake is for one
// encode, and safe for use by several goroutines.
type Brake struct {
	mu    sync.Mutex
	held  bool
	over  bool // nothing is stopped any more
	group int  // that it stops; 0 if there is none
}

// Hold stops the process, or the one that is about to be started.
func (b *Brake) Hold() { b.set(true) }

// Release continues the process.
func (b *Brake) Release() { b.set(false) }

func (b *Brake) set(held bool) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.held == held {
		return
	}

	b.held = held
	b.tell()
}

// tell brings the group to where the brake is. It may have ended meanwhile.
func (b *Brake) tell() {
	switch {
	case b.group == 0:
	case b.held:
		_ = syscall.Kill(-b.group, syscall.SIGSTOP)
	default:
		_ = syscall.Kill(-b.group, syscall.SIGCONT)
	}
}

// attach puts a group of processes under the brake, if that isn't over.
func (b *Brake) attach(group int) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.over {
		return
	}

	b.group = group
	if b.held {
		b.tell()
	}
}

// detach leaves the group alone from now on: it is to end, or has.
func (b *Brake) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.group, b.over = 0, true
}

// holds reports whether a group is stopped now.
func (b *Brake) holds() bool {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.held && b.group != 0
}
