package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tcoder-dev/tcoder/internal/local"
)

// How a Redis server of the benchmarks writes to disk.
const (
	everySecond = "everysec"
	always      = "always"
	never       = "" // no append-only file
)

// redisSettings is what all of them have in common, for the reader of a table.
// Rewrites of the file are off, because when they come depends on the length
// of a round.
const redisSettings = "redis-server on loopback TCP, one per contender and round, append-only file with fsync every second " +
	"unless said otherwise, no snapshots, no rewrites of the file, everything else as it comes"

// redisServer is a redis-server of its own, with an empty keyspace.
type redisServer struct {
	*child

	address string
	dir     string
	fsync   string
	conn    *respConn
}

func startRedis(ctx context.Context, s setting, fsync string) (_ *redisServer, err error) {
	dir, err := os.MkdirTemp(s.work, "redis-")
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	args := []string{
		"--bind", host, "--port", port, "--dir", dir, "--daemonize", "no", "--save", "", "--loglevel", "warning",
		"--maxmemory-policy", "noeviction", "--auto-aof-rewrite-percentage", "0",
	}
	if fsync != never {
		args = append(args, "--appendonly", "yes", "--appendfsync", fsync)
	}
	r := &redisServer{address: address, dir: dir, fsync: fsync}
	r.child, err = startChild(ctx, filepath.Join(dir, "server.log"), local.ProcessConfig{
		Name: "redis",
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, "redis-server", args...), nil
		},
		Check: func(ctx context.Context) error {
			conn, err := dialRESP(ctx, address)
			if err != nil {
				return err
			}
			defer conn.close()
			_, err = conn.do("PING")

			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if r.conn, err = dialRESP(ctx, address); err == nil {
		err = r.checkFile()
	}
	if err != nil {
		return nil, errors.Join(err, r.stop())
	}

	return r, nil
}

// url is the address in the form that tcoder takes.
func (r *redisServer) url() string { return "redis://" + r.address }

// stop ends the server, forgets its data, and fails if it didn't write what it should.
func (r *redisServer) stop() error {
	err := r.checkFile()
	if r.conn != nil {
		r.conn.close()
	}

	return errors.Join(err, r.child.stop(), os.RemoveAll(r.dir))
}

// checkFile fails if the append-only file isn't as asked for.
func (r *redisServer) checkFile() error {
	if r.conn == nil {
		return nil
	}
	info, err := r.info("persistence")
	if err != nil {
		return err
	}
	want := "1"
	if r.fsync == never {
		want = "0"
	}
	if info["aof_enabled"] != want || info["aof_last_write_status"] != "ok" {
		return fmt.Errorf("redis: the append-only file isn't as asked for (%q): enabled %s, last write %s",
			r.fsync, info["aof_enabled"], info["aof_last_write_status"])
	}

	return nil
}

// info reads a section of INFO.
func (r *redisServer) info(section string) (map[string]string, error) {
	reply, err := r.conn.do("INFO", section)
	if err != nil {
		return nil, err
	}
	text, _ := reply.(string)
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			fields[name] = value
		}
	}

	return fields, nil
}

// cpu is the processor time of the thread that runs commands, in seconds.
func (r *redisServer) cpu() (float64, error) {
	info, err := r.info("cpu")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, name := range []string{"used_cpu_sys_main_thread", "used_cpu_user_main_thread"} {
		seconds, err := strconv.ParseFloat(info[name], 64)
		if err != nil {
			return 0, fmt.Errorf("redis: %s: %w", name, err)
		}
		sum += seconds
	}

	return sum, nil
}

// memoryBytes is what the server has allocated.
func (r *redisServer) memoryBytes() (float64, error) {
	info, err := r.info("memory")
	if err != nil {
		return 0, err
	}
	bytes, err := strconv.ParseFloat(info["used_memory"], 64)
	if err != nil {
		return 0, fmt.Errorf("redis: used_memory: %w", err)
	}

	return bytes, nil
}
