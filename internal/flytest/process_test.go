package flytest_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/flytest"
)

// play is the program of a machine.
func play() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	note := os.Getenv("FLYTEST_NOTE") + os.Getenv("FLY_MACHINE_ID")
	if os.WriteFile(note+".tmp", []byte(strings.Join(append(os.Environ(), os.Args[1:]...), "\n")), 0o600) != nil ||
		os.Rename(note+".tmp", note) != nil {
		os.Exit(2)
	}
	for {
		select {
		case <-term:
			if os.Getenv("FLYTEST_ROLE") != "stubborn" {
				os.Exit(0)
			}
		case <-time.After(patience):
			os.Exit(4)
		}
	}
}

func withProcesses(t *testing.T, role string) (api, string) {
	t.Helper()
	dir := t.TempDir() + string(filepath.Separator)
	return open(t, func(c *flytest.Config) {
		c.Command = func(b flytest.Boot) ([]string, []string) {
			env := []string{"FLYTEST_ROLE=" + role, "FLYTEST_NOTE=" + dir}
			for name, value := range b.Env {
				env = append(env, name+"="+value)
			}
			return append([]string{os.Args[0]}, b.Exec...), env
		}
	}), dir
}

func awaitFile(t *testing.T, name string) string {
	t.Helper()
	var text []byte
	require.Eventually(t, func() bool {
		var err error
		text, err = os.ReadFile(name)
		return err == nil
	}, patience, 5*time.Millisecond)
	return string(text)
}

// TestMachinesAreProcesses: with the machine's environment, Fly's variables and
// its command; a signal stops it, and a new start is a new process.
func TestMachinesAreProcesses(t *testing.T) {
	t.Parallel()
	a, dir := withProcesses(t, "obedient")
	id := a.launch(t, "", noRestart+`,"env":{"COLOUR":"blue"},"init":{"exec":["worker","--now"]}`)
	text := awaitFile(t, dir+id)
	for _, line := range []string{"COLOUR=blue", "FLY_MACHINE_ID=" + id, "FLY_REGION=iad", "FLY_APP_NAME=acme", "FLY_VM_MEMORY_MB=256", "worker", "--now"} {
		require.Contains(t, strings.Split(text, "\n"), line)
	}
	require.NoError(t, os.Remove(dir+id))
	require.Equal(t, 200, a.call(t, "POST", path+"/"+id+"/stop", `{"signal":"SIGTERM"}`).status)
	a.await(t, id, "stopped")
	require.Equal(t, flytest.Counts{Existing: 1, MostExisting: 1, MostRunning: 1, MostProcesses: 1, Created: 1}, a.Counts())
	require.Equal(t, 200, a.call(t, "POST", path+"/"+id+"/start", "").status)
	awaitFile(t, dir+id)
	a.Exit(id, 1) // killed: it died by itself
	a.await(t, id, "stopped")
	require.Contains(t, a.call(t, "GET", path+"/"+id+"/events", "").text, `"guest_signal":9`)
}

// TestStopKillsAfterTheTimeout: a program that ignores its signal is killed;
// destroying doesn't ask it.
func TestStopKillsAfterTheTimeout(t *testing.T) {
	t.Parallel()
	a, dir := withProcesses(t, "stubborn")
	one := a.launch(t, "", noRestart+`,"stop_config":{"timeout":"50ms","signal":"SIGTERM"}`)
	two := a.launch(t, "", noRestart)
	awaitFile(t, dir+one)
	awaitFile(t, dir+two)
	require.Equal(t, 200, a.call(t, "POST", path+"/"+one+"/stop", `{"timeout":"0s"}`).status)
	a.await(t, one, "stopped")
	require.Equal(t, 200, a.call(t, "DELETE", path+"/"+two+"?kill=true", "").status)
	a.await(t, two, "404")
	require.Zero(t, a.Counts().Processes)
}
