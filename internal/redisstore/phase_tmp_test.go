package redisstore_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

func BenchmarkPhases(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	store, err := redisstore.New(redisstore.Config{URL: server.URL()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, store.Close()) })
	const callers = 256
	sessions := make([]int64, callers)
	for n := range sessions {
		sessions[n], _, err = store.AttachWorker(b.Context(), pipeline.Worker{ID: workerName(n), Slots: 1}, time.Minute)
		require.NoError(b, err)
	}
	N := b.N
	leases := make([]pipeline.Lease, N)
	who := make([]int, N)
	phase := func(name string, f func(caller, i int) error) {
		var wg sync.WaitGroup
		var next atomic.Int64
		r0, o0, t0 := redisCPU(b, server.URL()), ownCPU(b), time.Now()
		for c := range callers {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= N {
						return
					}
					if err := f(c, i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		fmt.Printf("%-10s redis %.1f us client %.1f us wall %.1f us\n", name, (redisCPU(b, server.URL())-r0)*1e6/float64(N), (ownCPU(b)-o0)*1e6/float64(N), float64(time.Since(t0).Microseconds())/float64(N))
	}
	ctx := b.Context()
	phase("create", func(c, i int) error {
		id := ulid.Make().String()
		_, err := store.CreateJob(ctx, pipeline.Job{
			ID: id, Project: pipeline.DefaultProject, Spec: media.Spec{Preset: "hls-adaptive"},
			Source: pipeline.Source{ObjectKey: "in/default/" + id + "/source", SizeBytes: 1 << 30, ETag: id, Filename: "a clip.mp4"},
			Labels: map[string]string{"note": fmt.Sprintf("%0100d", 7)},
		}, pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Weight: 1},
			pipeline.Admission{IdempotencyKey: id, Fingerprint: "f", KeyTTL: time.Hour})
		return err
	})
	phase("claim", func(c, i int) error {
		got, err := store.ClaimTasks(ctx, pipeline.Claim{RequestID: ulid.Make().String(), WorkerID: workerName(c), Session: sessions[c], Max: 1, Lease: time.Minute})
		if err != nil {
			return err
		}
		leases[i], who[i] = got.Leases[0], c
		return nil
	})
	renew := func(c, i int) error {
		_, err := store.RenewLeases(ctx, workerName(who[i]), time.Minute, []pipeline.Renewal{{Ref: leases[i].Ref, Fraction: 0.3, Progress: pipeline.Progress{MediaTime: 4 * time.Second, Speed: 2.5, FPS: 75}}})
		return err
	}
	phase("renew1", renew)
	phase("renew2", renew)
	phase("finish", func(c, i int) error {
		_, _, err := store.FinishTask(ctx, pipeline.TaskResult{Ref: leases[i].Ref, WorkerID: workerName(who[i]), Result: &media.EncodeResult{}})
		return err
	})
	phase("complete", func(c, i int) error {
		_, err := store.CompleteJob(ctx, leases[i].Job.ID, 1, []media.Output{{Name: "hls", Kind: media.KindHLS, Entry: "master.m3u8"}})
		return err
	})
}
