package redisstore_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// BenchmarkCycle takes jobs of one task from CreateJob to COMPLETED, with two
// reports of progress, by many callers at once. Each is a worker of its own
// with one slot. It tells the processor time of Redis and of this process.
func BenchmarkCycle(b *testing.B) {
	for _, fsync := range []bool{false, true} {
		for _, callers := range []int{1, 32, 256, 1024} {
			name := fmt.Sprintf("everysec/callers=%d", callers)
			if fsync {
				name = fmt.Sprintf("always/callers=%d", callers)
			}

			b.Run(name, func(b *testing.B) { benchmarkCycle(b, callers, fsync) })
		}
	}
}

func benchmarkCycle(b *testing.B, callers int, fsync bool) {
	b.Helper()

	server := redistest.Start(b, redistest.Options{FsyncAlways: fsync})
	store, err := redisstore.New(redisstore.Config{URL: server.URL()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, store.Close()) })

	sessions := make([]int64, callers)
	for n := range sessions {
		sessions[n], _, err = store.AttachWorker(b.Context(), pipeline.Worker{ID: workerName(n), Slots: 1}, time.Minute)
		require.NoError(b, err)
	}

	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)

	redisBefore, ownBefore := redisCPU(b, server.URL()), ownCPU(b)
	callsBefore := scriptCalls(b, server.URL())

	b.ResetTimer()

	for n := range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := cycle(b, store, workerName(n), sessions[n]); err != nil {
					b.Error(err)

					return
				}
			}
		})
	}

	wg.Wait()
	b.StopTimer()

	jobs := float64(b.N)
	b.ReportMetric(jobs/b.Elapsed().Seconds(), "cycles/s")
	b.ReportMetric((redisCPU(b, server.URL())-redisBefore)*1e6/jobs, "redis-us/job")
	b.ReportMetric((ownCPU(b)-ownBefore)*1e6/jobs, "client-us/job")
	b.ReportMetric((scriptCalls(b, server.URL())-callsBefore)/jobs, "calls/job")
}

func workerName(n int) string { return fmt.Sprintf("01K00000000000000000%06d", n) }

// cycle takes one job to its end; which one is the store's choice.
func cycle(b *testing.B, store *redisstore.Store, worker string, session int64) error {
	b.Helper()

	ctx := b.Context()
	id := ulid.Make().String()

	_, err := store.CreateJob(ctx, pipeline.Job{
		ID: id, Project: pipeline.DefaultProject, Spec: media.Spec{Preset: "hls-adaptive"},
		Source: pipeline.Source{ObjectKey: "in/default/" + id + "/source", SizeBytes: 1 << 30, ETag: id, Filename: "a clip.mp4"},
		Labels: map[string]string{"note": fmt.Sprintf("%0100d", 7)},
	}, pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Weight: 1},
		pipeline.Admission{IdempotencyKey: id, Fingerprint: "f", KeyTTL: time.Hour})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}

	var claimed pipeline.Claimed
	for len(claimed.Leases) == 0 {
		claimed, err = store.ClaimTasks(ctx, pipeline.Claim{
			RequestID: ulid.Make().String(), WorkerID: worker, Session: session, Max: 1, Lease: time.Minute,
		})
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
	}

	l := claimed.Leases[0]
	for _, fraction := range []float64{0.3, 0.6} {
		renewed, err := store.RenewLeases(ctx, worker, time.Minute, []pipeline.Renewal{{
			Ref: l.Ref, Fraction: fraction, Progress: pipeline.Progress{MediaTime: 4 * time.Second, Speed: 2.5, FPS: 75},
		}})
		if err != nil || len(renewed.Lost) > 0 {
			return fmt.Errorf("renew: %v: %w", renewed.Lost, err)
		}
	}

	v, last, err := store.FinishTask(ctx, pipeline.TaskResult{
		Ref: l.Ref, WorkerID: worker, Result: &media.EncodeResult{},
	})
	if err != nil || v != pipeline.VerdictAccepted || !last {
		return fmt.Errorf("finish: %s, last %t: %w", v, last, err)
	}

	done, err := store.CompleteJob(ctx, l.Job.ID, 1, []media.Output{{Name: "hls", Kind: media.KindHLS, Entry: "master.m3u8"}})
	if err != nil || !done {
		return fmt.Errorf("complete: %t: %w", done, err)
	}

	return nil
}

// settled waits until the server doesn't rewrite its file, which would be measured, too.
func settled(b *testing.B, url string) {
	b.Helper()

	opts, err := redis.ParseURL(url)
	require.NoError(b, err)

	client := redis.NewClient(opts)
	defer func() { require.NoError(b, client.Close()) }()

	require.Eventually(b, func() bool {
		info, err := client.Info(b.Context(), "persistence").Result()

		return err == nil && strings.Contains(info, "aof_rewrite_in_progress:0") &&
			strings.Contains(info, "aof_rewrite_scheduled:0")
	}, 5*time.Minute, 100*time.Millisecond)
}

// redisCPU is the processor time of a server's main thread in seconds.
func redisCPU(b *testing.B, url string) float64 {
	b.Helper()

	return infoSum(b, url, "cpu", `used_cpu_(?:sys|user)_main_thread:([\d.]+)`)
}

// scriptCalls is how often a server ran a script.
func scriptCalls(b *testing.B, url string) float64 {
	b.Helper()

	return infoSum(b, url, "commandstats", `cmdstat_evalsha:calls=(\d+)`)
}

// infoSum adds up the numbers that a pattern finds in a section of INFO.
func infoSum(b *testing.B, url, section, pattern string) float64 {
	b.Helper()

	opts, err := redis.ParseURL(url)
	require.NoError(b, err)

	client := redis.NewClient(opts)
	defer func() { require.NoError(b, client.Close()) }()

	info, err := client.Info(b.Context(), section).Result()
	require.NoError(b, err)

	sum := 0.0

	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(info, -1) {
		n, err := strconv.ParseFloat(match[1], 64)
		require.NoError(b, err)

		sum += n
	}

	return sum
}

// ownCPU is the processor time of this process in seconds.
func ownCPU(b *testing.B) float64 {
	b.Helper()

	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))

	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// BenchmarkClaim claims one task at a time with few and with very many that
// wait: its cost must not follow their number.
func BenchmarkClaim(b *testing.B) {
	for _, waiting := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			server := redistest.Start(b, redistest.Options{})
			store, err := redisstore.New(redisstore.Config{URL: server.URL()})
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, store.Close()) })

			create := func() {
				id := ulid.Make().String()
				_, err := store.CreateJob(b.Context(), pipeline.Job{
					ID: id, Project: pipeline.DefaultProject, Source: pipeline.Source{ObjectKey: "in/default/" + id + "/source"},
				}, pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
				if err != nil {
					b.Error(err)
				}
			}

			var (
				wg   sync.WaitGroup
				left atomic.Int64
			)

			left.Store(int64(waiting))

			for range 256 {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						create()
					}
				})
			}

			wg.Wait()
			settled(b, server.URL())

			session, _, err := store.AttachWorker(b.Context(), pipeline.Worker{ID: "w", Slots: 1}, time.Minute)
			require.NoError(b, err)

			before := redisCPU(b, server.URL())
			spent := 0.0

			b.ResetTimer()

			for n := range b.N {
				got, err := store.ClaimTasks(b.Context(), pipeline.Claim{
					RequestID: strconv.Itoa(n), WorkerID: "w", Session: session, Max: 1, Lease: time.Hour,
				})
				if err != nil || len(got.Leases) != 1 {
					b.Fatal(got, err)
				}

				if n%500 == 499 { // as many wait as before
					b.StopTimer()

					spent += redisCPU(b, server.URL()) - before
					for range 500 {
						create()
					}

					before = redisCPU(b, server.URL())

					b.StartTimer()
				}
			}

			b.StopTimer()

			spent += redisCPU(b, server.URL()) - before
			b.ReportMetric(spent*1e6/float64(b.N), "redis-us/claim")
		})
	}
}
