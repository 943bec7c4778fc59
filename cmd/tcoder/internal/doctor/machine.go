package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// Less free space than this doesn't hold a film and its outputs.
const leastFreeBytes = 5 << 30

// checkPort sees whether the address is free.
func (d *doctor) checkPort(ctx context.Context) []finding {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.listen)
	switch {
	case err == nil:
		if err := listener.Close(); err != nil {
			return []finding{fail("port", "", "%v", err)}
		}

		return []finding{ok("port", "%s is free", d.listen)}
	case errors.Is(err, syscall.EADDRINUSE) && d.reach(ctx, "http://"+d.listen) == nil:
		return []finding{ok("port", "%s is used by a tcoder server", d.listen)}
	case errors.Is(err, syscall.EADDRINUSE):
		return []finding{fail("port", "stop that program, or choose another address by --listen", "%s is in use by another program", d.listen)}
	default:
		return []finding{fail("port", "choose another address by --listen", "%v", err)}
	}
}

// reach asks a server for something cheap.
func (d *doctor) reach(ctx context.Context, address string) error {
	client, err := tcoder.New(address, tcoder.WithAPIKey(d.Env("TCODER_API_KEY")))
	if err != nil {
		return err
	}
	_, err = client.Presets(ctx)

	return err
}

// checkServer asks whether a server runs; it doesn't have to.
func (d *doctor) checkServer(ctx context.Context) []finding {
	address := d.server
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	err := d.reach(ctx, address)
	switch {
	case err == nil:
		return []finding{ok("server", "%s answers", address)}
	case errors.Is(err, tcoder.ErrUnreachable):
		return []finding{warn("server", "start one: tcoder up", "nothing answers at %s", address)}
	default:
		return []finding{warn("server", "check --server and TCODER_API_KEY", "%s: %v", address, err)}
	}
}

// checkFolders sees whether there is room for sources and outputs.
func (d *doctor) checkFolders(context.Context) []finding {
	return []finding{checkFolder("temp folder", os.TempDir()), checkFolder("data folder", d.data)}
}

// checkFolder judges a folder, or the one in which it would be made.
func checkFolder(name, path string) finding {
	path, err := filepath.Abs(path)
	if err != nil {
		return fail(name, "", "%v", err)
	}
	for {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || path == filepath.Dir(path) {
			break
		}
		path = filepath.Dir(path)
	}
	if err := tryWrite(path); err != nil {
		return fail(name, "make it writable for this user, or choose another", "%v", err)
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(path, &disk); err != nil {
		return warn(name, "", "%s can be written; its free space is unknown: %v", path, err)
	}
	free := disk.Bavail * uint64(disk.Bsize)
	text := fmt.Sprintf("%s can be written, %.1f GiB free", path, float64(free)/(1<<30))
	if free < leastFreeBytes {
		return warn(name, "free some space: sources and outputs need it", "%s", text)
	}

	return ok(name, "%s", text)
}

func tryWrite(path string) error {
	file, err := os.CreateTemp(path, ".tcoder-doctor-*")
	if err != nil {
		return err
	}

	return errors.Join(file.Close(), os.Remove(file.Name()))
}
