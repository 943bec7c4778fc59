package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// cost is what a run took.
type cost struct {
	wall time.Duration
	cpu  time.Duration // user and system, of every process of the run
}

// output runs a program to its end and returns all that it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}

	return string(out), nil
}

// median returns the middle of several figures.
func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}

	return sorted[len(sorted)/2]
}
