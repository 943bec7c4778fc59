package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/server"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
)

const (
	storeTimeout = 10 * time.Second
	leastRedis   = 7
	// Signed requests are refused when the clocks are 15 minutes apart;
	// deadlines on screens are odd much earlier.
	skewWarn = 5 * time.Second
	skewFail = 5 * time.Minute
	fixClock = "let the clock be set by the network: timedatectl set-ntp true"
)

// checkRedis looks at the Redis that is named, or at the program that up
// starts.
func (d *doctor) checkRedis(ctx context.Context) []finding {
	if d.storage.RedisURL == "" {
		return []finding{checkRedisProgram(ctx)}
	}
	const fix = "check --redis-url, and that the server runs and can be reached from here"
	store, err := redisstore.New(redisstore.Config{URL: d.storage.RedisURL, Tag: d.storage.RedisTag})
	if err != nil {
		return []finding{fail("redis", fix, "%v", err)}
	}
	defer store.Close() //nolint:errcheck // nothing was written
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	asked := time.Now()
	info, err := store.Inspect(ctx)
	if err != nil {
		return []finding{fail("redis", fix, "it doesn't answer: %v", err)}
	}
	took := time.Since(asked)

	return append(judgeRedis(info), judgeSkew("redis clock", info.Time.Sub(asked.Add(took/2)), took))
}

func checkRedisProgram(ctx context.Context) finding {
	const fix = "apt-get install redis-server (in a checkout: make deps), or name a running one by --redis-url"
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fail("redis", fix, "redis-server is not installed")
	}
	out, err := output(ctx, path, "--version")
	if err != nil {
		return fail("redis", fix, "%s doesn't run: %v", path, err)
	}
	version := strings.TrimPrefix(thirdWord(out), "v=")
	if major, known := majorVersion(version); known && major < leastRedis {
		return fail("redis", fix, "redis-server %s at %s is older than %d", version, path, leastRedis)
	}

	return ok("redis", "redis-server %s at %s", version, path)
}

func judgeRedis(info redisstore.ServerInfo) []finding {
	var findings []finding
	if major, known := majorVersion(info.Version); known && major < leastRedis {
		findings = append(findings, fail("redis", fmt.Sprintf("use Redis %d or newer", leastRedis), "version %s", info.Version))
	} else {
		findings = append(findings, ok("redis", "version %s answers%s", info.Version, reachedBy(info)))
	}
	if info.Cluster {
		findings = append(findings, judgeCluster(info))
	}
	if info.AppendOnly == "no" {
		findings = append(findings, warn("redis data", "set appendonly yes", "jobs are lost when Redis restarts"))
	}
	if policy := info.MaxMemoryPolicy; policy != "" && policy != "noeviction" {
		findings = append(findings, fail("redis memory", "set maxmemory-policy noeviction", "%s drops jobs when memory is short", policy))
	}

	return findings
}

// reachedBy says how, where that isn't the plain way.
func reachedBy(info redisstore.ServerInfo) string {
	var how string
	if info.Encrypted {
		how += ", encrypted"
	}
	if info.AsCluster {
		how += ", asked as a cluster"
	}

	return how
}

func judgeCluster(info redisstore.ServerInfo) finding {
	const name = "redis cluster"
	switch {
	case info.ClusterState != "ok":
		return fail(name, "see CLUSTER INFO: every slot needs a node that serves it", "its state is %s", info.ClusterState)
	case !info.AsCluster:
		return warn(name, "write redis+cluster:// or rediss+cluster:// in --redis-url",
			"the server is one node of a cluster, and calls don't follow the keys to another")
	default:
		return ok(name, "serves all slots")
	}
}

// judgeSkew judges how far another clock is ahead of ours, measured to within
// the given doubt.
func judgeSkew(name string, skew, doubt time.Duration) finding {
	off := skew.Abs()
	switch {
	case off > skewFail+doubt:
		return fail(name, fixClock, "this computer's is off by %s", off.Round(time.Second))
	case off > skewWarn+doubt:
		return warn(name, fixClock, "this computer's is off by %s", off.Round(time.Second))
	default:
		return ok(name, "agrees with this computer's")
	}
}

// checkStore writes, reads and removes a small object in each bucket.
func (d *doctor) checkStore(ctx context.Context) []finding {
	if d.storage.Endpoint == "" {
		return []finding{ok("object store", "built in")}
	}
	if err := d.storage.CheckS3(); err != nil {
		return []finding{fail("object store", "set both variables", "%v", err)}
	}
	var findings []finding
	buckets := []string{d.storage.BucketIn}
	if d.storage.BucketOut != d.storage.BucketIn {
		buckets = append(buckets, d.storage.BucketOut)
	}
	for _, bucket := range buckets {
		skew, err := probeBucket(ctx, d.storage, bucket)
		name := "bucket " + bucket
		if err != nil {
			findings = append(findings, fail(name,
				"check the endpoint, the keys and their rights, and that the bucket exists", "%v", err))

			continue
		}
		findings = append(findings, ok(name, "can be written, read and cleared"), judgeSkew("store clock", skew, time.Second))
	}

	return findings
}

// probeBucket returns how far the store's clock is ahead of ours.
func probeBucket(ctx context.Context, storage server.Storage, bucket string) (skew time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	store, err := storage.Bucket(bucket)
	if err != nil {
		return 0, err
	}
	defer store.Close()
	key, text := "doctor/"+rand.Text(), "tcoder doctor"
	before := time.Now()
	if err := store.Put(ctx, key, strings.NewReader(text), objectstore.PutOptions{}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Delete(ctx, key)) }()
	wrote := before.Add(time.Since(before) / 2)
	body, info, err := store.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	got, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	if string(got) != text {
		return 0, errors.New("what was written isn't what is read")
	}

	return info.LastModified.Sub(wrote), nil
}
