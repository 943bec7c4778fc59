package sandbox_test

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// do lets the prisoner do something and returns how it ended, and what it says.
func do(t *testing.T, keeper *sandbox.Sandbox, run sandbox.Run, deed string, args ...string) (*os.ProcessState, string) {
	t.Helper()

	run.Path = prisonerPath
	run.Args = append([]string{prisonerWord, deed}, args...)

	cmd, err := keeper.Command(t.Context(), run)
	require.NoError(t, err)

	output, err := cmd.CombinedOutput()

	var exited *exec.ExitError
	if err != nil {
		require.ErrorAs(t, err, &exited)
	}

	require.NotContains(t, string(output), sandbox.Prefix)

	return cmd.ProcessState, string(output)
}

// listen opens a port that counts nothing and refuses nothing.
func listen(t *testing.T) (string, uint16) {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })

	_, text, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)

	port, err := strconv.ParseUint(text, 10, 16)
	require.NoError(t, err)

	return listener.Addr().String(), uint16(port)
}

// full is the sandbox with all layers, which the tests' machine must have.
func full(t *testing.T) *sandbox.Sandbox {
	t.Helper()

	keeper, err := sandbox.New(t.Context(), sandbox.Config{Mode: sandbox.Require})
	require.NoError(t, err)

	return keeper
}

// TestHolds guarantees that a program in the sandbox gets at nothing but its
// folder and its port, whatever it tries.
func TestHolds(t *testing.T) {
	t.Parallel()

	keeper := full(t)
	address, port := listen(t)
	other, otherPort := listen(t)
	neighbour := filepath.Join(t.TempDir(), "other-task")
	require.NoError(t, os.WriteFile(neighbour, []byte("secret"), 0o644))

	for deed, args := range map[string][][]string{
		"read": {
			{"/etc/hostname"},
			{"/etc/passwd"},
			{neighbour},
			{"/proc/self/environ"},
			{"/proc/1/cmdline"},
			{"/usr/bin/env"},
			{"../" + filepath.Base(neighbour)},
		},
		"write":   {{"/tmp/escaped"}, {neighbour}, {"/dev/shm/escaped"}},
		"mkdir":   {{"/tmp/escaped"}},
		"rename":  {{filepath.Join(filepath.Dir(neighbour), "moved")}},
		"symlink": {{"link"}},
		"link":    {{"link", neighbour}},
		"fifo":    {{"fifo"}},
		"connect": {{other}, {"169.254.169.254:80"}, {"[::1]:" + strconv.Itoa(int(otherPort))}},
		"listen":  {{}},
		"resolve": {{}},
		// A connection that Landlock isn't asked about.
		"fast open": {{strconv.Itoa(int(otherPort))}},
		"udp":       {{}}, "raw": {{}}, "unix": {{}}, "netlink": {{}}, "mptcp": {{}},
		"fork": {{}}, "run": {{"/bin/sh", "-c", "true"}, {"/usr/bin/env"}},
		"signal": {{}}, "ptrace": {{}}, "unshare": {{}}, "mount": {{}}, "io_uring": {{}}, "bpf": {{}}, "keyctl": {{}},
		"be root": {{}}, "capabilities": {{}}, "environment": {{}},
	} {
		for _, args := range args {
			t.Run(deed+" "+strings.Join(args, " "), func(t *testing.T) {
				t.Parallel()

				state, said := do(t, keeper, sandbox.Run{Dir: t.TempDir(), Port: port}, deed, args...)
				require.Equal(t, 1, state.ExitCode(), said)
				require.NotContains(t, said, "no such file", "the sandbox refuses, it doesn't hide: else nothing was tried")
			})
		}
	}

	for deed, args := range map[string][]string{
		"nothing": {}, "write": {"file"}, "mkdir": {"folder"}, "rename": {"b"}, "connect": {address},
		"read": {"/dev/null"},
	} {
		state, said := do(t, keeper, sandbox.Run{Dir: t.TempDir(), Port: port}, deed, args...)
		require.Zero(t, state.ExitCode(), "%s: %s", deed, said)
	}

	state, _ := do(t, keeper, sandbox.Run{}, "write", "/tmp/escaped")
	require.Equal(t, 1, state.ExitCode(), "without a folder there is none to write to")
}

// TestCalls guarantees that where Landlock is missing, system calls are still
// held back: what is left in the folder leads nowhere.
func TestCalls(t *testing.T) {
	t.Parallel()

	keeper := sandbox.Only(sandbox.LayerCalls)
	neighbour := filepath.Join(t.TempDir(), "other-task")
	require.NoError(t, os.WriteFile(neighbour, []byte("secret"), 0o644))

	for deed, args := range map[string][]string{
		"symlink": {"link"}, "link": {"link", neighbour}, "fifo": {"fifo"}, "udp": {}, "fork": {}, "ptrace": {}, "mount": {},
	} {
		state, said := do(t, keeper, sandbox.Run{Dir: t.TempDir()}, deed, args...)
		require.Equal(t, 1, state.ExitCode(), deed)
		require.Contains(t, said, "operation not permitted", deed)
	}

	for deed, args := range map[string][]string{"write": {"file"}, "mkdir": {"folder"}, "rename": {"b"}} {
		state, said := do(t, keeper, sandbox.Run{Dir: t.TempDir()}, deed, args...)
		require.Zero(t, state.ExitCode(), "%s: %s", deed, said)
	}
}

// TestLimits guarantees that what a program may use is bounded, also where
// nothing but limits is asked for.
func TestLimits(t *testing.T) {
	t.Parallel()

	for name, keeper := range map[string]*sandbox.Sandbox{"full": full(t), "limits alone": sandbox.Limited()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			run := sandbox.Run{Dir: t.TempDir(), Limits: sandbox.Limits{
				CPUSeconds: 1, AddressBytes: 16 << 30, FileBytes: 64 << 10, OpenFiles: 64,
			}}

			state, said := do(t, keeper, run, "memory")
			require.Equal(t, 1, state.ExitCode())
			require.Contains(t, said, "cannot allocate memory")

			state, said = do(t, keeper, run, "open files")
			require.Equal(t, 1, state.ExitCode())
			require.Contains(t, said, "too many open files")

			state, _ = do(t, keeper, run, "file")
			require.Equal(t, 1, state.ExitCode())

			info, err := os.Stat(filepath.Join(run.Dir, "large"))
			require.NoError(t, err)
			require.LessOrEqual(t, info.Size(), int64(64<<10))

			// The shell leaves the signal that tells the cause alone.
			run.Path, run.Args = "/bin/sh", []string{"-c", "while :; do :; done"}
			cmd, err := keeper.Command(t.Context(), run)
			require.NoError(t, err)
			require.Error(t, cmd.Run())

			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			require.True(t, ok)
			require.Equal(t, syscall.SIGXCPU, status.Signal())
		})
	}
}

// TestUser guarantees that root's programs run as nobody, or as who is named,
// and own their folder; and that a name which isn't granted is no silent root.
func TestUser(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		_, err := sandbox.New(t.Context(), sandbox.Config{User: "1:1"})
		require.ErrorContains(t, err, "operation not permitted")

		return
	}

	for name, owner := range map[string]uint32{"": 65534, sandbox.UserAuto: 65534, "12345:12346": 12345, sandbox.UserSame: 0} {
		keeper, err := sandbox.New(t.Context(), sandbox.Config{User: name})
		require.NoError(t, err)

		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))

		state, said := do(t, keeper, sandbox.Run{Dir: dir}, "write", "folder/file")
		require.Zero(t, state.ExitCode(), said)

		info, err := os.Stat(filepath.Join(dir, "folder", "file"))
		require.NoError(t, err)

		stat, ok := info.Sys().(*syscall.Stat_t)
		require.True(t, ok)
		require.Equal(t, owner, stat.Uid, name)
	}
}

// TestModes guarantees that each mode gives what it says and that nonsense is
// refused.
func TestModes(t *testing.T) {
	t.Parallel()

	for _, layer := range full(t).Layers() {
		require.True(t, layer.Active, "%s: %s", layer.Name, layer.Detail)
		require.NotEmpty(t, layer.Detail)
	}

	off, err := sandbox.New(t.Context(), sandbox.Config{Mode: sandbox.Off})
	require.NoError(t, err)

	for _, layer := range off.Layers() {
		require.Equal(t, layer.Name == sandbox.LayerLimits, layer.Active)
	}

	_, err = sandbox.New(t.Context(), sandbox.Config{Mode: "most"})
	require.ErrorContains(t, err, `"most"`)
	_, err = sandbox.New(t.Context(), sandbox.Config{User: "nobody"})
	require.ErrorContains(t, err, `"nobody"`)

	_, err = sandbox.Default().Command(t.Context(), sandbox.Run{Path: filepath.Join(t.TempDir(), "nothing")})
	require.ErrorIs(t, err, fs.ErrNotExist)
}
