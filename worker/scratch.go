package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// scratchPrefix marks the folders that workers make below a scratch folder,
// beside whatever else is there.
const scratchPrefix = "tcoder-worker-"

const scratchLock = "lock"

// scratch is the folder of one worker below a folder that several may share. A
// lock that ends with the process tells the living from the dead.
type scratch struct {
	dir  string
	lock *os.File
}

// openScratch makes the worker's folder below base, and removes those of
// workers that died without removing theirs.
func openScratch(base, workerID string) (*scratch, error) {
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	if err := sweepScratch(base); err != nil {
		return nil, fmt.Errorf("sweep the scratch folder: %w", err)
	}

	base, err := filepath.Abs(base)
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	// Another worker that sweeps must never see the folder without its lock, so
	// it gets its name last.
	dir, making := filepath.Join(base, scratchPrefix+workerID), filepath.Join(base, ".making-"+workerID)
	if err := os.Mkdir(making, 0o700); err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	lock, err := lockScratch(making)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the scratch folder: %w", err), os.RemoveAll(making))
	}

	if err := os.Rename(making, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("scratch folder: %w", err), os.RemoveAll(making), lock.Close())
	}

	return &scratch{dir: dir, lock: lock}, nil
}

// close removes the folder.
func (s *scratch) close() error {
	return errors.Join(os.RemoveAll(s.dir), s.lock.Close())
}

func lockScratch(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, scratchLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}

	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}

	return file, nil
}

func sweepScratch(base string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}

	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), scratchPrefix) {
			continue
		}

		dir := filepath.Join(base, entry.Name())

		lock, err := lockScratch(dir)
		if err != nil {
			continue // its worker lives
		}

		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return err
		}
	}

	return nil
}
