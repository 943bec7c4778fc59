package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// scratchName is what workers call their folder where the system keeps such.
const scratchName = "tcoder-scratch"

// memoryDir is where Linux keeps files in memory.
const memoryDir = "/dev/shm"

// Scratch is where a worker keeps unfinished results.
type Scratch struct {
	// Dir is the folder. Workers share it.
	Dir string
	// InMemory tells that its files are in memory.
	InMemory bool
	// FreeBytes is how much it takes: of a folder in memory no more than the
	// memory that is free.
	FreeBytes uint64
}

// ScratchPlaces are the folders that a worker with a ScratchDir uses. With none
// given there may be two: the first in memory, for attempts that fit there, and
// one on the disk.
func ScratchPlaces(dir string) ([]Scratch, error) {
	if dir != "" {
		place, err := scratchAt(dir)

		return []Scratch{place}, err
	}

	disk, err := scratchAt(filepath.Join(os.TempDir(), scratchName))
	if err != nil {
		return nil, err
	}

	memory, err := scratchAt(filepath.Join(memoryDir, scratchName))
	if err != nil || !memory.InMemory || memory.Dir == disk.Dir || memory.FreeBytes/shareOfMemory < boundedScratch {
		return []Scratch{disk}, nil //nolint:nilerr // the disk does
	}

	return []Scratch{memory, disk}, nil
}

// scratchAt makes a folder, and tells what it is.
func scratchAt(dir string) (Scratch, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Scratch{}, fmt.Errorf("scratch folder: %w", err)
	}

	var about syscall.Statfs_t
	if err := syscall.Statfs(dir, &about); err != nil {
		return Scratch{}, fmt.Errorf("scratch folder: %w", err)
	}

	const tmpfs, ramfs = 0x01021994, 0x858458f6

	place := Scratch{Dir: dir, FreeBytes: about.Bavail * uint64(about.Bsize)}
	if kind := uint32(about.Type); kind == tmpfs || kind == ramfs {
		place.InMemory = true
		place.FreeBytes = min(place.FreeBytes, freeMemory())
	}

	return place, nil
}

// shareOfMemory is the part of a folder in memory that attempts may plan with:
// FFmpeg needs memory too, and others use the folder.
const shareOfMemory = 2

// room finds a folder for each attempt: in memory if what it makes fits there
// beside what the others make, else on the disk.
type room struct {
	memory string // empty: there is none
	disk   string

	mu       sync.Mutex
	promised uint64 // to attempts in memory
}

// take returns the folder for an attempt; release gives its room back.
func (r *room) take(needBytes uint64) (dir string, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if r.memory == "" {
		return r.disk, func() {}
	}

	if now, err := scratchAt(r.memory); err != nil || r.promised+needBytes > now.FreeBytes/shareOfMemory {
		return r.disk, func() {}
	}

	r.promised += needBytes

	return r.memory, func() {
		r.mu.Lock()
		defer r.mu.Unlock()

		r.promised -= needBytes
	}
}

// scratchNeed is the most that an attempt keeps in its folder. Segments leave
// it as they are stored, a file when it is whole.
func scratchNeed(a *tcoderv1.Assignment) uint64 {
	switch work := a.GetWork().(type) {
	case *tcoderv1.Assignment_Assemble:
		var total uint64 = boundedScratch / 4 // the index
		for _, pieces := range [][]*tcoderv1.Piece{work.Assemble.GetVideo(), work.Assemble.GetAudio()} {
			for _, piece := range pieces {
				total += piece.GetSizeBytes()
			}
		}

		return total
	case *tcoderv1.Assignment_Encode:
		if work.Encode.GetOutput().GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_MP4 {
			return boundedScratch
		}

		return fileNeed(work.Encode, a.GetSourceSizeBytes())
	default:
		return 0
	}
}

// fileNeed is how large the files of an MP4 output can get: bitrates are caps
// of averages, and a copy is at most as large as its source.
func fileNeed(work *tcoderv1.EncodeWork, sourceBytes uint64) uint64 {
	output := work.GetOutput()
	files := max(1, len(output.GetVideo().GetRenditions())) // each has the sound
	bits := uint64(files) * uint64(output.GetAudio().GetBitrateBps())
	total := uint64(boundedScratch)

	for _, rendition := range output.GetVideo().GetRenditions() {
		if rendition.GetCopy() {
			total += sourceBytes
		} else {
			bits += uint64(rendition.GetVideoBitrateBps())
		}
	}

	if output.GetAudio().GetCopy() {
		total += uint64(files) * sourceBytes
	}

	const overhead = 1.1

	return total + uint64(overhead*float64(bits)/8*work.GetDuration().AsDuration().Seconds())
}
