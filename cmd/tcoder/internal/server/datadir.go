package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// errDataInUse says that another `tcoder up` runs on the data folder.
var errDataInUse = errors.New("is in use by another tcoder up")

// dataDir is the folder of one `tcoder up`, locked against a second one for as
// long as the process lives.
type dataDir struct {
	path string
	lock *os.File
}

func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path) // children have other working folders
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "up.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("data folder %s %w: stop that one, or choose another folder with --data", path, errDataInUse)
		}

		return nil, errors.Join(err, lock.Close())
	}

	return &dataDir{path: path, lock: lock}, nil
}

func (d *dataDir) join(elements ...string) string {
	return filepath.Join(append([]string{d.path}, elements...)...)
}

func (d *dataDir) close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}

	return nil
}
