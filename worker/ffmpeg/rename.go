package ffmpeg

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watchRenames calls onRename soon after files got their names in folders,
// from one goroutine, until stop is called and has returned.
func watchRenames(dirs []string, onRename func()) (stop func(), err error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch a folder: %w", err)
	}

	// A file that doesn't block is read by Go's poller, and closing it ends the read.
	events := os.NewFile(uintptr(fd), "inotify")

	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
			_ = events.Close()

			return nil, fmt.Errorf("watch a folder: %w", err)
		}
	}

	ended := make(chan struct{})

	go func() {
		defer close(ended)

		const room = 16 << 10

		for buffer := make([]byte, room); ; {
			if _, err := events.Read(buffer); err != nil {
				return
			}

			onRename()
		}
	}()

	return func() {
		_ = events.Close()
		<-ended
	}, nil
}
