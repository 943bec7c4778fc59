package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tcoder-dev/tcoder/worker"
)

const (
	// So much is written to a scratch folder to see how fast it is.
	scratchTrialBytes = 16 << 20
	// A worker that makes a ladder of 1080p at several times its speed writes
	// less than this; below it, its disk is what it waits for.
	leastScratchSpeed = 32 << 20 // bytes per second
	leastScratchBytes = 256 << 20
	fixScratch        = "give workers a folder in memory by --scratch, such as a tmpfs, or a faster disk"
)

// checkScratch tells where a worker here would keep unfinished results, and
// how large and fast that is.
func (d *doctor) checkScratch(ctx context.Context) []finding {
	places, err := worker.ScratchPlaces(d.scratch)
	if err != nil {
		return []finding{fail("scratch", "choose another folder by --scratch", "%v", err)}
	}
	var findings []finding
	for i, place := range places {
		kind, use := "on a disk", "all results"
		if place.InMemory {
			kind = "in memory"
		}
		if len(places) > 1 {
			use = [...]string{"segments and files that fit", "larger files"}[i]
		}
		speed, err := writeSpeed(ctx, place.Dir)
		if err != nil {
			findings = append(findings, fail("scratch", "make it writable for this user, or choose another by --scratch", "%s: %v", place.Dir, err))

			continue
		}
		text := fmt.Sprintf("%s, %s, for %s: %.1f GiB free, writes %.0f MiB/s",
			place.Dir, kind, use, float64(place.FreeBytes)/(1<<30), speed/(1<<20))
		if speed < leastScratchSpeed || place.FreeBytes < leastScratchBytes {
			findings = append(findings, warn("scratch", fixScratch, "%s", text))
		} else {
			findings = append(findings, ok("scratch", "%s", text))
		}
	}

	return findings
}

// writeSpeed writes a file to its end and returns the bytes per second.
func writeSpeed(ctx context.Context, dir string) (perSecond float64, err error) {
	file, err := os.CreateTemp(dir, ".tcoder-doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	start, block := time.Now(), make([]byte, 1<<20)
	for written := 0; written < scratchTrialBytes && ctx.Err() == nil; written += len(block) {
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}

	return scratchTrialBytes / time.Since(start).Seconds(), ctx.Err()
}
