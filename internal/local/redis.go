package local

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	dirPerm  = 0o700
	filePerm = 0o600
	// maxSocketPath is below the kernels' limits for unix sockets (104 to 108).
	maxSocketPath = 100
	// redisStartTimeout leaves time to read a large append-only file.
	redisStartTimeout = 5 * time.Minute
	redisCheckTimeout = 2 * time.Second
)

// ErrNoRedisServer says that the redis-server program is missing, and how to
// get it.
var ErrNoRedisServer = errors.New("redis-server is not installed: " +
	"install it (Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis), " +
	"or give the URL of a running Redis")

// RedisConfig says where a Redis server keeps its data and how safe it is.
type RedisConfig struct {
	// Dir is the data folder, created if missing. One server at a time.
	Dir string
	// Binary is the server program; empty means redis-server from the PATH.
	Binary string
	// FsyncAlways flushes to disk before each answer. Without it, it happens
	// each second: the end of the process loses next to nothing, the end of
	// the computer up to two seconds of writes.
	FsyncAlways bool
	// NoRestart makes Run return an error when the server dies.
	NoRestart bool
	Log       *slog.Logger
}

// Redis is a redis-server child with an append-only file, on a unix socket
// that only this user can open.
type Redis struct {
	*Process
	cfg    RedisConfig
	socket string
}

// NewRedis checks the folder's path and starts nothing.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("redis data folder: %w", err)
	}
	cfg.Dir = dir
	if cfg.Binary == "" {
		cfg.Binary = "redis-server"
	}
	r := &Redis{cfg: cfg, socket: socketPath(dir)}
	if len(r.socket) > maxSocketPath {
		return nil, fmt.Errorf("redis socket path is longer than %d bytes: %s", maxSocketPath, r.socket)
	}
	r.Process = NewProcess(ProcessConfig{
		Name:         "redis",
		Command:      r.command,
		Check:        r.check,
		LockFile:     filepath.Join(dir, "server.lock"),
		StartTimeout: redisStartTimeout,
		NoRestart:    cfg.NoRestart,
		Log:          cfg.Log,
	})
	return r, nil
}

// URL is the address in the form go-redis parses: unix:///path.
func (r *Redis) URL() string {
	return (&url.URL{Scheme: "unix", Path: r.socket}).String()
}

func (r *Redis) command(ctx context.Context) (*exec.Cmd, error) {
	binary, err := exec.LookPath(r.cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoRedisServer, err)
	}
	if err := os.MkdirAll(r.cfg.Dir, dirPerm); err != nil {
		return nil, fmt.Errorf("create redis data folder: %w", err)
	}
	if dir := filepath.Dir(r.socket); dir != r.cfg.Dir {
		if err := privateDir(dir); err != nil {
			return nil, err
		}
	}
	fsync := "everysec"
	if r.cfg.FsyncAlways {
		fsync = "always"
	}
	return exec.CommandContext(ctx, binary,
		"--port", "0",
		"--unixsocket", r.socket,
		"--unixsocketperm", "700",
		"--dir", r.cfg.Dir,
		"--daemonize", "no",
		"--appendonly", "yes",
		"--appendfsync", fsync,
		"--save", "",
		"--maxmemory-policy", "noeviction",
		// A job is a hash of short fields; as a listpack it takes a fraction of the memory.
		"--hash-max-listpack-value", "1024",
		"--loglevel", "warning",
	), nil
}

// check sends one PING. While Redis reads its file it answers -LOADING.
func (r *Redis) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisCheckTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", r.socket)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "+PONG" {
		return fmt.Errorf("ping answered %q", answer)
	}
	return nil
}

// socketPath is in the data folder, or for a deep folder in one of a short
// name that is the same at every start.
func socketPath(dir string) string {
	if path := filepath.Join(dir, "redis.sock"); len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(dir))
	name := "tcoder-" + strconv.Itoa(os.Getuid()) + "-" + hex.EncodeToString(sum[:8])
	return filepath.Join(os.TempDir(), name, "redis.sock")
}

// privateDir makes sure that dir is ours alone: the temp folder is everybody's,
// and the short name can be guessed.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return fmt.Errorf("create socket folder: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at socket folder: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm() != dirPerm {
		return fmt.Errorf("socket folder %s is not this user's alone", dir)
	}
	return nil
}
