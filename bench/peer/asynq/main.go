// Command asynq is a peer of the benchmarks: it pushes tasks through asynq on
// a Redis that it is given, and prints what it saw as JSON.
//
//	asynq -redis HOST:PORT -mode cycle -tasks N -callers C -workers W -payload BYTES
//	asynq -redis HOST:PORT -mode latency -tasks N -every D -check D -payload BYTES
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
)

const kind = "bench"

// result is what the harness reads.
type result struct {
	Submitted int64     `json:"submitted"`
	Processed int64     `json:"processed"`
	WallS     float64   `json:"wall_s"`
	CPUS      float64   `json:"cpu_s"`
	LatencyMs []float64 `json:"latency_ms,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "asynq:", err)
		os.Exit(1)
	}
}

func run() error {
	redis := flag.String("redis", "", "host:port")
	tasks := flag.Int("tasks", 1000, "how many")
	callers := flag.Int("callers", 32, "concurrent submitters")
	workers := flag.Int("workers", 32, "concurrency of the server")
	payload := flag.Int("payload", 300, "bytes")
	every := flag.Duration("every", 20*time.Millisecond, "between two tasks")
	check := flag.Duration("check", 0, "TaskCheckInterval; 0 is asynq's default of 1 s")
	mode := flag.String("mode", "cycle", "cycle or latency")
	flag.Parse()
	opt := asynq.RedisClientOpt{Addr: *redis, PoolSize: *callers + *workers}
	client := asynq.NewClient(opt)
	defer client.Close()
	server := asynq.NewServer(opt, asynq.Config{Concurrency: *workers, TaskCheckInterval: *check, LogLevel: asynq.ErrorLevel})
	var out result
	var err error
	switch *mode {
	case "cycle":
		out, err = cycle(client, server, *tasks, *callers, *payload)
	case "latency":
		out, err = latency(client, server, *tasks, *payload, *every)
	default:
		err = errors.New("mode: cycle or latency")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// cycle submits and processes at once, until the last task is processed. The
// submitters stay ahead, so that the server never finds its queue empty, where
// it would sleep.
func cycle(client *asynq.Client, server *asynq.Server, tasks, callers, payload int) (result, error) {
	var done atomic.Int64
	all := make(chan struct{})
	before := cpu()
	start := time.Now()
	body := make([]byte, payload)
	var submitted atomic.Int64
	var failure atomic.Pointer[error]
	var wg sync.WaitGroup
	var next atomic.Int64
	for range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(tasks) {
				if _, err := client.Enqueue(asynq.NewTask(kind, body)); err != nil {
					failure.Store(&err)
					return
				}
				submitted.Add(1)
			}
		})
	}
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		if done.Add(1) == int64(tasks) {
			close(all)
		}
		return nil
	})); err != nil {
		return result{}, err
	}
	wg.Wait()
	if err := failure.Load(); err != nil {
		return result{}, *err
	}
	select {
	case <-all:
	case <-time.After(time.Minute):
	}
	out := result{Submitted: submitted.Load(), WallS: time.Since(start).Seconds(), CPUS: cpu() - before}
	server.Shutdown()
	out.Processed = done.Load()
	return out, nil
}

// latency submits at a steady rate and times each task from just before its
// submission to its handler.
func latency(client *asynq.Client, server *asynq.Server, tasks, payload int, every time.Duration) (result, error) {
	var mu sync.Mutex
	var out result
	all := make(chan struct{})
	if err := server.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		sent := time.Unix(0, int64(binary.LittleEndian.Uint64(t.Payload())))
		out.LatencyMs = append(out.LatencyMs, now.Sub(sent).Seconds()*1000)
		if len(out.LatencyMs) == tasks {
			close(all)
		}
		return nil
	})); err != nil {
		return result{}, err
	}
	before, start := cpu(), time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range tasks {
		<-tick.C
		body := make([]byte, payload)
		binary.LittleEndian.PutUint64(body, uint64(time.Now().UnixNano()))
		if _, err := client.Enqueue(asynq.NewTask(kind, body)); err != nil {
			return result{}, err
		}
		out.Submitted++
	}
	select {
	case <-all:
	case <-time.After(time.Minute):
	}
	server.Shutdown()
	mu.Lock()
	defer mu.Unlock()
	out.Processed = int64(len(out.LatencyMs))
	out.WallS, out.CPUS = time.Since(start).Seconds(), cpu()-before
	return out, nil
}

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
