package local_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/local"
)

// ask sends one command without arguments that need quoting and returns the
// answer's last line.
func ask(t *testing.T, redis *local.Redis, command string) string {
	t.Helper()
	address, err := url.Parse(redis.URL())
	require.NoError(t, err)
	require.Equal(t, "unix", address.Scheme)
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", address.Path)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // a test connection
	_, err = fmt.Fprintf(conn, "%s\r\nQUIT\r\n", command)
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(strings.TrimSuffix(string(answer), "+OK\r\n")), "\r\n")
	return lines[len(lines)-1]
}

func newRedis(t *testing.T, cfg local.RedisConfig) *local.Redis {
	t.Helper()
	redis, err := local.NewRedis(cfg)
	require.NoError(t, err)
	return redis
}

// The server runs with the settings the data model counts on.
func TestRedisSettings(t *testing.T) {
	t.Parallel()
	redis := newRedis(t, local.RedisConfig{Dir: filepath.Join(shortDir(t), "with space")})
	run(t, redis)
	for name, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction",
		"hash-max-listpack-value": "1024", "port": "0", "save": "",
	} {
		answer := ask(t, redis, "CONFIG GET "+name)
		if want == "" {
			require.Equal(t, "$0", answer, name)
			continue
		}
		require.Equal(t, want, answer, name)
	}
	address, err := url.Parse(redis.URL())
	require.NoError(t, err)
	info, err := os.Stat(address.Path)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "others may connect")
}

// An acknowledged write outlives kill -9 of the server, which comes back by
// itself at the same address.
func TestRedisSurvivesKill(t *testing.T) {
	t.Parallel()
	redis := newRedis(t, local.RedisConfig{Dir: shortDir(t), FsyncAlways: true})
	run(t, redis)
	address, pid := redis.URL(), redis.PID()
	require.Equal(t, "always", ask(t, redis, "CONFIG GET appendfsync"))
	require.Equal(t, "+OK", ask(t, redis, "SET key value"))
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		return redis.PID() != 0 && redis.PID() != pid && serves(redis)
	}, soon, 10*time.Millisecond)
	require.Equal(t, address, redis.URL())
	require.Equal(t, "value", ask(t, redis, "GET key"))
}

// Data outlives a stop.
func TestRedisKeepsData(t *testing.T) {
	t.Parallel()
	cfg := local.RedisConfig{Dir: shortDir(t)}
	first := newRedis(t, cfg)
	stop := run(t, first)
	require.Equal(t, "+OK", ask(t, first, "SET key value"))
	stop()
	second := newRedis(t, cfg)
	run(t, second)
	require.Equal(t, "value", ask(t, second, "GET key"))
}

// A data folder too deep for a socket works all the same, at an address that
// is the same at every start.
func TestRedisDeepFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), strings.Repeat("deep/", 30))
	redis := newRedis(t, local.RedisConfig{Dir: dir})
	run(t, redis)
	require.Equal(t, "+PONG", ask(t, redis, "PING"))
	require.NotContains(t, redis.URL(), "deep")
	require.Equal(t, redis.URL(), newRedis(t, local.RedisConfig{Dir: dir}).URL())
	address, err := url.Parse(redis.URL())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(filepath.Dir(address.Path))) })
	require.FileExists(t, filepath.Join(dir, "server.lock"))
}

// Without the program the error says what to install.
func TestRedisMissing(t *testing.T) {
	t.Parallel()
	redis := newRedis(t, local.RedisConfig{Dir: shortDir(t), Binary: "redis-server-that-is-not-there"})
	err := redis.Run(t.Context())
	require.ErrorIs(t, err, local.ErrNoRedisServer)
	require.ErrorContains(t, err, "apt-get install redis-server")
}

// Damaged data is reported with the server's own words and not retried.
func TestRedisDamagedData(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	aof := filepath.Join(dir, "appendonlydir")
	require.NoError(t, os.Mkdir(aof, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(aof, "appendonly.aof.manifest"), []byte("nonsense\n"), 0o600))
	err := newRedis(t, local.RedisConfig{Dir: dir}).Run(t.Context())
	require.ErrorContains(t, err, "manifest")
}

// The kernel stops the child of a parent killed with -9, and a new parent on
// the same data waits for that and serves.
func TestRedisDiesWithParent(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "parent", dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.True(t, alive(pid))

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	redis := newRedis(t, local.RedisConfig{Dir: dir})
	run(t, redis)
	require.False(t, alive(pid), "two servers on the same data")
	require.Equal(t, "+PONG", ask(t, redis, "PING"))
}

func serves(redis *local.Redis) bool {
	address, err := url.Parse(redis.URL())
	if err != nil {
		return false
	}
	conn, err := net.DialTimeout("unix", address.Path, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close() //nolint:errcheck // a test connection
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && answer == "+PONG\r\n"
}
