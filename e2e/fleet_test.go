package e2e_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/e2e/daemon"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

const (
	fleetLimit = 3
	fleetKept  = 1 // stopped machines
	// bootWithin is how long a machine may boot: short enough to wait for one
	// that never does, long enough for a loaded computer.
	bootWithin = 20 * time.Second
	fleetImage = "worker@sha256:1"
	fleetKey   = "customer"
	flyToken   = "fm2_fleet"
)

// fleet is two control planes whose machines are those of a Machines API in
// memory, each with the `tcoder worker` of a real one as its process.
type fleet struct {
	cloud    *flytest.Server
	api      string            // the cloud's address
	store    *redisstore.Store // reads the truth
	replicas []*fleetReplica
	clip     string
	spec     *tcoderv1.JobSpec
	jobs     []string
}

// fleetReplica is one of them.
type fleetReplica struct {
	*daemon.Daemon

	url  string
	args []string
	env  []string
}

// newFleet starts the first control plane, which leads, then the other one.
func newFleet(t *testing.T, flags ...string) *fleet {
	t.Helper()
	f := &fleet{
		clip: mediatest.Clip(t, mediatest.Film),
		spec: &tcoderv1.JobSpec{Preset: "hls", Qualities: []string{"240p"}},
	}
	f.startCloud(t)
	d := newDeployment(t)
	var err error
	f.store, err = redisstore.New(redisstore.Config{URL: d.redisURL, Tag: d.tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.store.Close()) })
	addresses := []string{freeAddress(t), freeAddress(t)}
	for _, address := range addresses {
		args := append([]string{"serve", "--listen", address}, d.flags...)
		args = append(args, "--lease", "6s", "--heartbeat", "1s", "--pool", "fly", "--pool-limit", strconv.Itoa(fleetLimit),
			"--pool-idle", "2s", "--pool-start-timeout", bootWithin.String(), "--fly-keep-stopped", strconv.Itoa(fleetKept),
			"--fly-app", "acme", "--fly-api-url", f.api, "--fly-image", fleetImage, "--fly-kill-timeout", "10s",
			"--fly-server-url", "http://"+strings.Join(addresses, ",http://"))
		f.replicas = append(f.replicas, &fleetReplica{
			url: "http://" + address, args: append(args, flags...),
			env: append(d.env, "TCODER_API_KEYS="+fleetKey, "TCODER_WORKER_TOKEN=workers", "TCODER_FLY_API_TOKEN="+flyToken),
		})
	}
	for _, r := range f.replicas {
		r.start(t)
	}

	return f
}

// start starts a control plane, again if it was killed.
func (r *fleetReplica) start(t *testing.T) {
	t.Helper()
	r.Daemon = start(t, t.TempDir(), r.env, r.args...)
	waitReady(t, r.url, r.Daemon)
}

// startCloud starts the Machines API, with the rate limits of the real one.
func (f *fleet) startCloud(t *testing.T) {
	t.Helper()
	scratch := t.TempDir()
	log, err := os.Create(filepath.Join(t.TempDir(), "machines.log"))
	require.NoError(t, err)
	f.cloud = flytest.New(flytest.Config{
		App: "acme", Token: flyToken, Regions: []string{"iad", "fra"}, Output: log,
		Delays: flytest.Delays{
			Create: 200 * time.Millisecond, Start: 100 * time.Millisecond, Stop: 50 * time.Millisecond, Destroy: 100 * time.Millisecond,
			Forget: time.Second,
		},
		Command: func(b flytest.Boot) ([]string, []string) {
			env := []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + scratch}
			for name, value := range b.Env {
				env = append(env, name+"="+value)
			}

			return append([]string{binary}, b.Exec[1:]...), env
		},
	})
	server := httptest.NewServer(f.cloud)
	f.api = server.URL
	t.Cleanup(func() {
		server.Close()
		f.cloud.Close()
		_ = log.Close()
		if t.Failed() {
			t.Logf("the machines printed:\n%s", daemon.Tail(log.Name()))
			for _, call := range f.cloud.Calls() {
				t.Log(call.Op, call.Path, call.Status)
			}
		}
	})
}

// client is a customer of the replica that is never paused.
func (f *fleet) client(t *testing.T) *tcoder.Client {
	t.Helper()
	c, err := tcoder.New(f.replicas[1].url, tcoder.WithAPIKey(fleetKey))
	require.NoError(t, err)

	return c
}

// submit submits jobs, small ones if nothing else was asked for.
func (f *fleet) submit(t *testing.T, jobs int) {
	t.Helper()
	for range jobs {
		uploaded, err := f.client(t).UploadFile(t.Context(), f.clip, tcoder.UploadOptions{Spec: f.spec})
		require.NoError(t, err)
		f.jobs = append(f.jobs, uploaded.Job.GetId())
	}
}

// finish waits until all jobs are done: none is lost, and none was charged for
// what happened to machines.
func (f *fleet) finish(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	for _, id := range f.jobs {
		job, err := f.client(t).Wait(ctx, id)
		require.NoError(t, err)
		require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, job.GetState(), "%v", job.GetFailure())
		for _, task := range job.GetTasks() {
			for _, attempt := range task.GetAttempts() {
				require.False(t, attempt.GetCharged(), "%v", attempt)
			}
		}
	}
}

// pool is the pool as the store has it.
func (f *fleet) pool(t *testing.T) pipeline.PoolView {
	t.Helper()
	view, err := f.store.ReadPool(t.Context())
	require.NoError(t, err)

	return view
}

// eventually waits for something that takes time.
func (f *fleet) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, jobWithin, 10*time.Millisecond, what)
}

// rest waits until no machine runs, and requires that each one there is known,
// and that there have never been more than the limit.
func (f *fleet) rest(t *testing.T) {
	t.Helper()
	f.eventually(t, "machines go on without work, or without a record", func() bool {
		records := f.pool(t).Machines
		works := slices.ContainsFunc(records, func(m pipeline.Machine) bool { return m.State != pipeline.MachineStopped })
		counts := f.cloud.Counts()

		return !works && counts.Running == 0 && counts.Processes == 0 && len(records) <= fleetKept && len(f.leaked(t)) == 0
	})
	counts := f.cloud.Counts()
	require.LessOrEqual(t, counts.MostExisting, fleetLimit)
	require.LessOrEqual(t, counts.MostProcesses, fleetLimit)
}

// limited counts the calls that were refused because there were too many.
func (f *fleet) limited() int {
	calls := f.cloud.Calls()
	calls = slices.DeleteFunc(calls, func(c flytest.Call) bool { return c.Status != http.StatusTooManyRequests })

	return len(calls)
}

// leaked are machines without a record, and records without a machine.
func (f *fleet) leaked(t *testing.T) []string {
	t.Helper()
	there := f.cloud.Machines()
	var leaked []string
	for _, m := range f.pool(t).Machines {
		if there[m.ProviderID] == "" {
			leaked = append(leaked, m.ID)
		}
		delete(there, m.ProviderID)
	}

	return slices.AppendSeq(leaked, maps.Keys(there))
}
