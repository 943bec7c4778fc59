package doctor

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/server"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

func TestMain(m *testing.M) {
	redistest.Main(s3test.Wrap(m))
}

// doctorFor runs the command on real stores and returns its findings by name.
func doctorFor(t *testing.T, env map[string]string, args ...string) (findings map[string]finding, err error) {
	t.Helper()
	var out bytes.Buffer
	program := &cli.Program{
		Stdout: &out, Stderr: &out,
		LookupEnv:  func(name string) (string, bool) { value, ok := env[name]; return value, ok },
		Notify:     func(chan<- os.Signal) {},
		StopNotify: func(chan<- os.Signal) {},
	}
	cmd := Command(program)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append(args, "--json", "--listen", "127.0.0.1:0", "--server", "127.0.0.1:1", "--data", t.TempDir()))
	err = cmd.ExecuteContext(t.Context())
	var report struct {
		Checks []finding `json:"checks"`
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &report), out.String())
	findings = map[string]finding{}
	for _, f := range report.Checks {
		findings[f.Name] = f
	}

	return findings, err
}

// A computer with everything passes; a server that doesn't run is no failure.
func TestHealthyMachine(t *testing.T) {
	t.Parallel()
	url, _ := redistest.New(t)
	store := s3test.New(t)
	findings, err := doctorFor(t,
		map[string]string{"TCODER_S3_ACCESS_KEY_ID": store.AccessKeyID, "TCODER_S3_SECRET_ACCESS_KEY": store.SecretAccessKey},
		"--redis-url", url, "--s3-endpoint", store.Endpoint, "--bucket-in", store.Bucket, "--bucket-out", store.Bucket)
	require.NoError(t, err)
	for _, name := range []string{
		"ffmpeg", "ffprobe", "libx264", "aac", "redis", "redis clock", "bucket " + store.Bucket, "store clock", "port", "temp folder",
	} {
		require.Equal(t, statusOK, findings[name].Status, "%s: %s", name, findings[name].Detail)
	}
	require.Equal(t, statusWarn, findings["server"].Status)
	require.NotEmpty(t, findings["server"].Fix)
}

// Doctor tells which folder a worker would use for unfinished results, and how
// large and fast it is.
func TestScratch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	findings, _ := doctorFor(t, nil, "--scratch", dir, "--redis-url", "redis://127.0.0.1:1", "--s3-endpoint", "http://127.0.0.1:1")
	require.Regexp(t, "^"+dir+`, (on a disk|in memory), for all results: [0-9.]+ GiB free, writes [0-9]+ MiB/s$`, findings["scratch"].Detail)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	findings, _ = doctorFor(t, nil, "--scratch", "/dev/null/no", "--redis-url", "redis://127.0.0.1:1", "--s3-endpoint", "http://127.0.0.1:1")
	require.Equal(t, statusFail, findings["scratch"].Status)
	require.NotEmpty(t, findings["scratch"].Fix)
}

// Stores that can't be used fail, and say what to do.
func TestBrokenStores(t *testing.T) {
	t.Parallel()
	findings, err := doctorFor(t, map[string]string{"TCODER_S3_ACCESS_KEY_ID": "a", "TCODER_S3_SECRET_ACCESS_KEY": "b"},
		"--redis-url", "redis://127.0.0.1:1", "--s3-endpoint", "http://127.0.0.1:1")
	require.Error(t, err)
	require.Equal(t, cli.ExitFailed, cli.ExitCode(err))
	for _, name := range []string{"redis", "bucket tcoder-in", "bucket tcoder-out"} {
		require.Equal(t, statusFail, findings[name].Status, name)
		require.NotEmpty(t, findings[name].Fix)
	}
}

// Of hosted Redis it says how it is reached.
func TestHostedRedis(t *testing.T) {
	t.Parallel()
	secure, cluster := redistest.StartTLS(t), redistest.StartCluster(t)
	for url, details := range map[string]map[string]string{
		secure.URL + "?skip_verify=true": {"redis": "answers, encrypted"},
		"redis+cluster://" + cluster:     {"redis": "answers, asked as a cluster", "redis cluster": "serves all slots"},
		"redis://" + cluster:             {"redis cluster": "one node of a cluster"},
	} {
		d := &doctor{storage: server.Storage{RedisURL: url}}
		found := map[string]string{}
		for _, f := range d.checkRedis(t.Context()) {
			found[f.Name] = f.Detail
		}
		for name, detail := range details {
			require.Contains(t, found[name], detail, url)
		}
	}
}

// A Redis that may lose or drop jobs is told apart from one that can't run them.
func TestJudgeRedis(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		info  redisstore.ServerInfo
		worst status
	}{
		"good":     {redisstore.ServerInfo{Version: "7.0.15", AppendOnly: "yes", MaxMemoryPolicy: "noeviction"}, statusOK},
		"hosted":   {redisstore.ServerInfo{Version: "7.4.0", Encrypted: true}, statusOK},
		"cluster":  {redisstore.ServerInfo{Version: "7.0.15", Cluster: true, ClusterState: "ok", AsCluster: true}, statusOK},
		"one node": {redisstore.ServerInfo{Version: "7.0.15", Cluster: true, ClusterState: "ok"}, statusWarn},
		"no slots": {redisstore.ServerInfo{Version: "7.0.15", Cluster: true, ClusterState: "fail", AsCluster: true}, statusFail},
		"volatile": {redisstore.ServerInfo{Version: "7.0.15", AppendOnly: "no", MaxMemoryPolicy: "noeviction"}, statusWarn},
		"evicting": {redisstore.ServerInfo{Version: "7.0.15", AppendOnly: "yes", MaxMemoryPolicy: "allkeys-lru"}, statusFail},
		"old":      {redisstore.ServerInfo{Version: "6.2.1", AppendOnly: "yes", MaxMemoryPolicy: "noeviction"}, statusFail},
	} {
		worst := statusOK
		for _, f := range judgeRedis(c.info) {
			if f.Status == statusFail || (f.Status == statusWarn && worst == statusOK) {
				worst = f.Status
			}
		}
		require.Equal(t, c.worst, worst, name)
	}
}

// Clocks may be apart by the doubt of the measurement and a little.
func TestJudgeSkew(t *testing.T) {
	t.Parallel()
	require.Equal(t, statusOK, judgeSkew("", -2*time.Second, 0).Status)
	require.Equal(t, statusOK, judgeSkew("", 6*time.Second, 2*time.Second).Status)
	require.Equal(t, statusWarn, judgeSkew("", -time.Minute, 0).Status)
	require.Equal(t, statusFail, judgeSkew("", time.Hour, 0).Status)
}

// Each layer of FFmpeg's sandbox has a line; a missing one says how to get it,
// and fails only where it is required.
func TestJudgeSandbox(t *testing.T) {
	t.Parallel()
	findings := judgeSandbox([]sandbox.Layer{
		{Name: sandbox.LayerFiles, Active: true, Detail: "Landlock 3"},
		{Name: sandbox.LayerNetwork, Detail: "Landlock 3 knows no ports", Fix: "Linux 6.7 or newer"},
	})
	require.Equal(t, []finding{
		{Name: "sandbox files", Status: statusOK, Detail: "Landlock 3"},
		{Name: "sandbox network", Status: statusWarn, Detail: "missing: Landlock 3 knows no ports", Fix: "Linux 6.7 or newer"},
	}, findings)
	d := &doctor{sandbox: server.Sandbox{Mode: "most"}}
	findings = d.checkSandbox(t.Context())
	require.Len(t, findings, 1)
	require.Equal(t, statusFail, findings[0].Status)
}

// A folder that doesn't exist is judged by where it would be made, and isn't.
func TestCheckFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := checkFolder("data folder", filepath.Join(dir, "a", "b"))
	require.NotEqual(t, statusFail, f.Status)
	require.True(t, strings.HasPrefix(f.Detail, dir+" "), f.Detail)
	require.NoDirExists(t, filepath.Join(dir, "a"))
	require.Equal(t, statusFail, checkFolder("data folder", "/proc/1/tcoder").Status)
}

// Versions of distributions, of builds from source and of branches are read.
func TestMajorVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"5.1.9-0+deb12u1": 5, "n7.1": 7, "7": 7} {
		major, known := majorVersion(text)
		require.True(t, known, text)
		require.Equal(t, want, major)
	}
	_, known := majorVersion("git-2024-01-01-abcdef")
	require.False(t, known)
}
