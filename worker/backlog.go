package worker

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
)

// An encode makes segments faster than some stores take them. Above pauseAbove
// of finished bytes that aren't stored FFmpeg is stopped, until goOnBelow of
// them are left. What it had begun by then, a segment of each rendition and
// what came between a rename and the stop, fits into the rest of
// boundedScratch.
const (
	boundedScratch = 64 << 20
	pauseAbove     = boundedScratch / 2
	goOnBelow      = pauseAbove / 2
)

// brake stops what fills the scratch folder, and lets it go on.
type brake interface {
	Hold()
	Release()
}

// backlog is what lies in an attempt's folder and waits to be stored.
type backlog struct {
	dir   string
	brake brake // nil: nothing can be stopped
	log   *slog.Logger

	mu      sync.Mutex
	waiting uint64 // bytes that are finished
	peak    uint64 // the most bytes there were, the unfinished ones included
	held    bool
	holds   int
}

// grow counts a file that is finished.
func (b *backlog) grow(sizeBytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.waiting += sizeBytes
	if b.brake != nil && !b.held && b.waiting > pauseAbove {
		b.held = true
		b.holds++
		b.brake.Hold()
		b.log.Debug("FFmpeg waits for the store", "waiting_bytes", b.waiting)
	}

	b.peak = max(b.peak, folderBytes(b.dir))
}

// shrink counts a file that is stored.
func (b *backlog) shrink(sizeBytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.waiting -= min(b.waiting, sizeBytes)
	if b.held && b.waiting <= goOnBelow {
		b.held = false
		b.brake.Release()
	}
}

// told is how much there was and how often FFmpeg was stopped, for the log.
func (b *backlog) told() (peakBytes uint64, holds int) {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.peak, b.holds
}

// folderBytes is the size of all files below a folder. Some may vanish while
// they are counted.
func folderBytes(dir string) uint64 {
	var total uint64

	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // it has vanished
		}

		if info, err := entry.Info(); err == nil {
			total += uint64(info.Size())
		}

		return nil
	})

	return total
}
