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
func openScratch(base, workerID string) (s *scratch, err error) {
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	base, err = filepath.Abs(base)
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	turn, err := takeTurn(base)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, turn.Close()) }()

	if err := sweepScratch(base); err != nil {
		return nil, fmt.Errorf("sweep the scratch folder: %w", err)
	}

	dir := filepath.Join(base, scratchPrefix+workerID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	lock, err := lockScratch(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the scratch folder: %w", err), os.RemoveAll(dir))
	}

	return &scratch{dir: dir, lock: lock}, nil
}

// close removes the folder.
func (s *scratch) close() error {
	turn, err := takeTurn(filepath.Dir(s.dir))
	if err != nil {
		return errors.Join(err, s.lock.Close())
	}

	return errors.Join(os.RemoveAll(s.dir), s.lock.Close(), turn.Close())
}

// takeTurn waits until no other worker makes or removes folders below base:
// who removed one while another looks for its lock would find it not empty.
// Closing the file ends the turn, and so does the end of the process.
func takeTurn(base string) (*os.File, error) {
	dir, err := os.Open(base)
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}

	for {
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}

	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the scratch folder: %w", err), dir.Close())
	}

	return dir, nil
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
