package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/e2e/daemon"
	"github.com/tcoder-dev/tcoder/internal/faultproxy"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
	"github.com/tcoder-dev/tcoder/worker"
)

// The size of the cell, and its pace: short enough that a fault outlives a
// lease, long enough for a loaded machine.
const (
	replicaCount = 3
	workerCount  = 6
	slots        = 3
	lease        = 1500 * time.Millisecond
	heartbeat    = 300 * time.Millisecond
	// host isn't where connections come from, so that none takes a port that
	// a killed replica comes back to.
	host = "127.0.0.2"
	tag  = "{crash}"
)

// Sources: their size says how long they are.
const (
	shortSource = "crash/short" // 10 s: one encode
	longSource  = "crash/long"  // 36 s: chunks and sound
)

// cell is one deployment, with a fault proxy wherever a network may fail.
type cell struct {
	seed     uint64
	reliable bool // no attempt fails by itself
	logs     string
	redis    *redistest.Server
	redisURL string
	store    *redisstore.Store // reads the truth, past the proxies
	out      *s3.Store
	bucket   s3.Config
	replicas []*replica
	workers  []*process
	gate     *gate
}

// replica is a control plane.
type replica struct {
	*daemon.Daemon

	address string
	redis   *faultproxy.Proxy // its way to Redis
	client  *tcoder.Client
}

// process is a worker, started again and again under new ids.
type process struct {
	*daemon.Daemon

	index int
	lives atomic.Int64
	links []*faultproxy.Proxy // its way to each replica
}

func (p *process) id() string { return fmt.Sprintf("w%d-%d", p.index, p.lives.Load()) }

func newCell(t *testing.T, seed uint64, reliable bool) *cell {
	t.Helper()
	c := &cell{seed: seed, reliable: reliable, logs: t.TempDir(), redis: redistest.Start(t, redistest.Options{FsyncAlways: true}), bucket: s3test.New(t)}
	c.redisURL = c.redis.URL()
	var err error
	c.store, err = redisstore.New(redisstore.Config{URL: c.redisURL, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.store.Close()) })
	c.out, err = s3.New(c.bucket)
	require.NoError(t, err)
	t.Cleanup(c.out.Close)
	for key, seconds := range map[string]int{shortSource: 10, longSource: 36} {
		body := strings.NewReader(strings.Repeat(".", seconds*bytesASecond))
		require.NoError(t, c.out.Put(t.Context(), key, body, objectstore.PutOptions{}))
	}
	t.Cleanup(func() { c.tellLogs(t) })
	c.gate = newGate(t, c.workerOf)
	for range replicaCount {
		r := &replica{address: daemon.FreeAddress(t, host), redis: newProxy(t, "unix", mustPath(t, c.redisURL))}
		r.client, err = tcoder.New("http://"+r.address, tcoder.WithRetry(tcoder.RetryPolicy{Patience: time.Millisecond, FirstPatience: time.Millisecond}))
		require.NoError(t, err)
		c.replicas = append(c.replicas, r)
		c.serve(t, r)
	}
	for i := range workerCount {
		p := &process{index: i}
		for _, r := range c.replicas {
			p.links = append(p.links, newProxy(t, "tcp", r.address))
		}
		c.workers = append(c.workers, p)
		c.work(t, p)
	}

	return c
}

func newProxy(t *testing.T, network, target string) *faultproxy.Proxy {
	t.Helper()
	proxy, err := faultproxy.New(network, target)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)

	return proxy
}

func mustPath(t *testing.T, text string) string {
	t.Helper()
	parsed, err := url.Parse(text)
	require.NoError(t, err)

	return parsed.Path
}

// serve starts a replica, and returns when it is ready.
func (c *cell) serve(t *testing.T, r *replica) {
	t.Helper()
	cmd := exec.Command(program, "serve", "--listen", r.address, "--redis-url", "redis://"+r.redis.Addr(),
		"--redis-tag", strings.Trim(tag, "{}"), "--s3-endpoint", c.bucket.Endpoint, "--bucket-in", c.bucket.Bucket,
		"--bucket-out", c.bucket.Bucket, "--pool", "none", "--lease", lease.String(), "--heartbeat", heartbeat.String())
	cmd.Env = append(os.Environ(), "TCODER_S3_ACCESS_KEY_ID="+c.bucket.AccessKeyID, "TCODER_S3_SECRET_ACCESS_KEY="+c.bucket.SecretAccessKey)
	r.Daemon = c.start(t, cmd, "replica-"+r.address)
	require.True(t, daemon.WaitReady(t, "http://"+r.address, r.Daemon), "a replica ended before it was ready")
}

// work starts a worker. Some hold streams, some make calls, some choose.
func (c *cell) work(t *testing.T, p *process) {
	t.Helper()
	p.lives.Add(1)
	config := fakeWorker{
		ID: p.id(), Slots: slots, Scratch: filepath.Join(c.logs, "scratch"), Seed: c.seed, Reliable: c.reliable, Gate: c.gate.URL,
		Transport: []worker.Transport{worker.TransportStream, worker.TransportAuto, worker.TransportSync}[p.index%3],
	}
	for _, link := range p.links {
		config.Servers = append(config.Servers, "http://"+link.Addr())
	}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fakeWorkerEnv+"="+string(text))
	p.Daemon = c.start(t, cmd, fmt.Sprintf("worker-%d", p.index))
}

// start starts a program that goes on with the log of its earlier lives.
func (c *cell) start(t *testing.T, cmd *exec.Cmd, name string) *daemon.Daemon {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(c.logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer log.Close() //nolint:errcheck // the program has it
	cmd.Stdout, cmd.Stderr = log, log

	return daemon.Start(t, cmd)
}

// tellLogs says what the programs printed, if the test failed.
func (c *cell) tellLogs(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	logs, err := filepath.Glob(filepath.Join(c.logs, "*.log"))
	require.NoError(t, err)
	for _, log := range logs {
		t.Logf("%s:\n%s", filepath.Base(log), daemon.Tail(log))
	}
}

// attached tells of a worker whether a replica has its connection.
func (c *cell) attached(r *replica) func(*process) bool {
	at := slices.Index(c.replicas, r)

	return func(p *process) bool { return p.links[at].Live() > 0 }
}

// workerOf is the worker of an id, false if that life of it is over.
func (c *cell) workerOf(id string) (*process, bool) {
	for _, p := range c.workers {
		if p.id() == id {
			return p, true
		}
	}

	return nil, false
}

// eventually asks until f says yes, or the time is over.
func eventually(ctx context.Context, within, every time.Duration, f func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errors.New("it takes too long"))
	defer cancel()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for !f() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}

	return nil
}
