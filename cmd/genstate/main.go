// Command genstate writes what is generated from the transition tables of
// internal/pipeline: the Lua include of the Redis scripts and the picture in
// docs/state-machine.md. Run it anywhere in the module.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

//go:generate go run .

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "genstate:", err)
		os.Exit(1)
	}
}

func run() error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}

	for path, content := range files() {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}

		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}

	return nil
}

// moduleRoot is the nearest folder upward that holds a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}

	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}

		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod here or above")
		}

		dir = parent
	}
}
