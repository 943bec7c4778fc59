package local_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/local"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/s3test"
)

func newS3(t *testing.T, dir string) *local.S3 {
	t.Helper()
	binary, err := s3test.Build(t.Context())
	require.NoError(t, err)
	server, err := local.NewS3(local.S3Config{Dir: dir, Command: []string{binary}})
	require.NoError(t, err)
	return server
}

func bucket(t *testing.T, server *local.S3) *s3.Store {
	t.Helper()
	keys := server.Credentials()
	store, err := s3.New(s3.Config{
		Endpoint: server.Endpoint(), AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey,
		Bucket: "bucket", PathStyle: true,
	})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	require.NoError(t, store.EnsureBucket(t.Context()))
	return store
}

// Objects, address and credentials outlive kill -9 of the server and a stop of
// everything, so URLs signed before stay good.
func TestS3KeepsEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := newS3(t, dir)
	stop := run(t, first)
	store := bucket(t, first)
	require.NoError(t, store.Put(t.Context(), "out/key", strings.NewReader("hello"), objectstore.PutOptions{}))

	pid := first.PID()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		info, err := store.Head(t.Context(), "out/key")
		return err == nil && info.SizeBytes == 5
	}, soon, 10*time.Millisecond)
	require.NotEqual(t, pid, first.PID())
	stop()

	second := newS3(t, dir)
	run(t, second)
	require.Equal(t, first.Endpoint(), second.Endpoint())
	require.Equal(t, first.Credentials(), second.Credentials())
	_, err := bucket(t, second).Head(t.Context(), "out/key")
	require.NoError(t, err)
}

// A taken port costs a look for another one, and a foreign server on it is
// never mistaken for ours.
func TestS3PortTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "address"), []byte(taken.Addr().String()+"\n"), 0o600))
	server := newS3(t, dir)
	run(t, server)
	require.NotContains(t, server.Endpoint(), taken.Addr().String())

	other := newS3(t, t.TempDir())
	run(t, other)
	binary, err := s3test.Build(t.Context())
	require.NoError(t, err)
	fixed, err := local.NewS3(local.S3Config{
		Dir: t.TempDir(), Command: []string{binary}, Listen: strings.TrimPrefix(other.Endpoint(), "http://"),
	})
	require.NoError(t, err)
	require.ErrorContains(t, fixed.Run(t.Context()), "address already in use")
}

// The credentials are random for each data folder, readable by this user only,
// and not on the child's command line.
func TestS3Credentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := newS3(t, dir)
	run(t, server)
	keys := server.Credentials()
	require.GreaterOrEqual(t, len(keys.SecretAccessKey), 40)

	file := filepath.Join(dir, "credentials.json")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var stored local.Credentials
	require.NoError(t, json.Unmarshal(data, &stored))
	require.Equal(t, keys, stored)

	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(server.PID()), name))
		require.NoError(t, err)
		require.NotContains(t, string(text), keys.SecretAccessKey, name)
		require.NotContains(t, string(text), keys.AccessKeyID, name)
	}

	other := newS3(t, t.TempDir())
	run(t, other)
	require.NotEqual(t, keys, other.Credentials())
}

// A damaged credentials file stops the start and says which file it is,
// because new keys would end the life of every signed URL in silence.
func TestS3DamagedCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "credentials.json"), []byte(`{"access`), 0o600))
	err := newS3(t, dir).Run(t.Context())
	require.ErrorContains(t, err, filepath.Join(dir, "credentials.json"))
}

// Data that began with a metadata folder, as on file systems without extended
// attributes, goes on with it.
func TestS3MetadataFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "metadata"), 0o700))
	server := newS3(t, dir)
	run(t, server)
	store := bucket(t, server)
	require.NoError(t, store.Put(t.Context(), "key", strings.NewReader("x"), objectstore.PutOptions{ContentType: "video/mp4"}))
	info, err := store.Head(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, "video/mp4", info.ContentType)
	entries, err := os.ReadDir(filepath.Join(dir, "metadata"))
	require.NoError(t, err)
	require.NotEmpty(t, entries)
}
