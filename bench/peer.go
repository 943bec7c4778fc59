package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
)

// The folders of the peers, each with pinned versions of its own: the product
// depends on none of them.
const (
	asynqDir  = "bench/peer/asynq"
	bullmqDir = "bench/peer/bullmq"
)

// peerRun is what a peer prints about a run.
type peerRun struct {
	Submitted int       `json:"submitted"`
	Processed int       `json:"processed"`
	WallS     float64   `json:"wall_s"`
	CPUS      float64   `json:"cpu_s"`
	LatencyMs []float64 `json:"latency_ms"`
}

// asynqPeer is the path of the peer's program.
type asynqPeer string

// buildAsynq builds the peer, fetching its modules on first use.
func buildAsynq(ctx context.Context, s setting) (asynqPeer, error) {
	path := filepath.Join(s.work, "asynq")
	if out, err := exec.CommandContext(ctx, "go", "build", "-C", asynqDir, "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build asynq: %w\n%s", err, out)
	}

	return asynqPeer(path), nil
}

func (p asynqPeer) run(ctx context.Context, redis *redisServer, args ...string) (peerRun, error) {
	args = append([]string{"-redis", redis.address, "-payload", strconv.Itoa(specBytes)}, args...)

	return runPeer(exec.CommandContext(ctx, string(p), args...))
}

// bullmqPeer is the path of the peer's script.
type bullmqPeer string

// installBullMQ installs the peer on first use, and after its lock file changed.
func installBullMQ(ctx context.Context) (bullmqPeer, error) {
	cmd := exec.CommandContext(ctx, "make", "-s", filepath.Join(bullmqDir, "node_modules", ".package-lock.json"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install bullmq: %w\n%s", err, out)
	}

	return bullmqPeer(filepath.Join(bullmqDir, "latency.js")), nil
}

func (p bullmqPeer) run(ctx context.Context, redis *redisServer, args ...string) (peerRun, error) {
	args = append([]string{string(p), "--redis", redis.address, "--payload", strconv.Itoa(specBytes)}, args...)

	return runPeer(exec.CommandContext(ctx, "node", args...))
}

// runPeer runs a peer to its end. A peer that processed fewer tasks than it
// submitted has not run.
func runPeer(cmd *exec.Cmd) (peerRun, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	name := filepath.Base(filepath.Dir(cmd.Path))
	if err := cmd.Run(); err != nil {
		return peerRun{}, fmt.Errorf("peer %s: %w\n%s", name, err, stderr.Bytes())
	}
	var ran peerRun
	if err := json.Unmarshal(stdout.Bytes(), &ran); err != nil {
		return peerRun{}, fmt.Errorf("peer %s: %w: %s", name, err, stdout.Bytes())
	}
	if ran.Submitted == 0 || ran.Processed != ran.Submitted {
		return peerRun{}, fmt.Errorf("invalid: peer %s processed %d of %d tasks", name, ran.Processed, ran.Submitted)
	}

	return ran, nil
}
