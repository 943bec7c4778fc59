// Command deploylint checks what can't be run without Docker or Fly: that the
// Dockerfile parses and keeps to its rules, that the compose file loads, that
// fly.toml says what Fly needs for streams, and that every TCODER_ variable in
// them and in the guide is one that the README's table knows.
//
// Usage: deploylint ROOT
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: deploylint ROOT")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(root string) error {
	var errs []error
	for _, part := range []struct {
		name  string
		check func(string) error
	}{
		{"deploy/Dockerfile", checkDockerfile},
		{"deploy/compose.yml", checkCompose},
		{"deploy/fly/fly.toml", checkFly},
	} {
		if err := part.check(filepath.Join(root, part.name)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part.name, err))
		}
	}

	return errors.Join(append(errs, checkVariables(root))...)
}

// checkDockerfile holds every final stage to: a pinned base, a user that isn't
// root, programs in exec form (they get signals).
func checkDockerfile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return err
	}
	var errs []error
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, msg string, at []parser.Range) {
		errs = append(errs, fmt.Errorf("line %d: %s: %s", line(at), rule, msg))
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return err
	}
	for _, stage := range stages {
		if !strings.Contains(stage.BaseName, ":") || strings.HasSuffix(stage.BaseName, ":latest") {
			errs = append(errs, fmt.Errorf("stage %s: the base %s has no version", stage.Name, stage.BaseName))
		}
		if stage.Name != "build" {
			errs = append(errs, checkStage(stage))
		}
	}

	return errors.Join(errs...)
}

func checkStage(stage instructions.Stage) error {
	var errs []error
	user := ""
	for _, command := range stage.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				errs = append(errs, fmt.Errorf("stage %s: ENTRYPOINT runs a shell, which keeps signals to itself", stage.Name))
			}
		case *instructions.CmdCommand:
			if c.PrependShell {
				errs = append(errs, fmt.Errorf("stage %s: CMD runs a shell, which keeps signals to itself", stage.Name))
			}
		case *instructions.RunCommand:
			run := strings.Join(c.CmdLine, " ")
			if strings.Contains(run, "apt-get install") &&
				(!strings.Contains(run, "--no-install-recommends") || !strings.Contains(run, "rm -rf /var/lib/apt/lists")) {
				errs = append(errs, fmt.Errorf("stage %s: apt-get leaves more than it needs", stage.Name))
			}
		}
	}
	if uid, _, _ := strings.Cut(user, ":"); !regexp.MustCompile(`^[1-9]\d*$`).MatchString(uid) {
		errs = append(errs, fmt.Errorf("stage %s: it runs as %q: name a numeric user that isn't root", stage.Name, user))
	}

	return errors.Join(errs...)
}

func line(at []parser.Range) int {
	if len(at) == 0 {
		return 0
	}

	return at[0].Start.Line
}

// checkCompose loads the file with the example's variables, and holds ports to
// this machine.
func checkCompose(path string) error {
	options, err := cli.NewProjectOptions([]string{path},
		cli.WithEnvFiles(filepath.Join(filepath.Dir(path), "..", ".env.example")), cli.WithDotEnv)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	var errs []error
	for name, service := range project.Services {
		if _, tag, _ := strings.Cut(service.Image, ":"); service.Build == nil && (tag == "" || tag == "latest") {
			errs = append(errs, fmt.Errorf("service %s: the image %s has no version", name, service.Image))
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				errs = append(errs, fmt.Errorf("service %s: port %s is open to the network", name, port.Published))
			}
		}
	}

	return errors.Join(errs...)
}

// fly is what of fly.toml matters here; a key that it lacks is refused.
type fly struct {
	App           string `toml:"app"`
	PrimaryRegion string `toml:"primary_region"`
	KillSignal    string `toml:"kill_signal"`
	KillTimeout   string `toml:"kill_timeout"`
	Build         struct {
		Dockerfile string `toml:"dockerfile"`
		Target     string `toml:"build-target"`
	} `toml:"build"`
	Deploy struct {
		Strategy       string  `toml:"strategy"`
		MaxUnavailable float64 `toml:"max_unavailable"`
	} `toml:"deploy"`
	Env         map[string]string `toml:"env"`
	HTTPService struct {
		InternalPort       int    `toml:"internal_port"`
		ForceHTTPS         bool   `toml:"force_https"`
		AutoStopMachines   string `toml:"auto_stop_machines"`
		MinMachinesRunning int    `toml:"min_machines_running"`
		Concurrency        struct {
			Type      string `toml:"type"`
			SoftLimit int    `toml:"soft_limit"`
			HardLimit int    `toml:"hard_limit"`
		} `toml:"concurrency"`
		HTTPOptions struct {
			H2Backend   bool `toml:"h2_backend"`
			IdleTimeout int  `toml:"idle_timeout"`
		} `toml:"http_options"`
		Checks []struct {
			Method      string `toml:"method"`
			Path        string `toml:"path"`
			Interval    string `toml:"interval"`
			Timeout     string `toml:"timeout"`
			GracePeriod string `toml:"grace_period"`
		} `toml:"checks"`
	} `toml:"http_service"`
	VM []struct {
		Size   string `toml:"size"`
		Memory string `toml:"memory"`
	} `toml:"vm"`
}

func checkFly(path string) error {
	var f fly
	meta, err := toml.DecodeFile(path, &f)
	if err != nil {
		return err
	}
	var errs []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, key := range meta.Undecoded() {
		require(false, "%s isn't a key that is known here", key)
	}
	kill, err := time.ParseDuration(f.KillTimeout)
	require(err == nil && kill > 0 && kill <= 5*time.Minute, "kill_timeout %q isn't in 1s to 5m, Fly's most", f.KillTimeout)
	require(f.KillSignal == "SIGTERM", "kill_signal must be SIGTERM: it drains")
	require(f.Deploy.Strategy == "rolling", "deploy.strategy must be rolling, so that a replica stays")
	h := f.HTTPService
	require(h.HTTPOptions.H2Backend, "http_options.h2_backend must be true, or gRPC and streams fail")
	require(h.MinMachinesRunning >= 2 && h.AutoStopMachines == "off", "two replicas must stay running")
	require(h.Concurrency.Type == "requests", "concurrency must count requests")
	require(len(h.Checks) > 0 && h.Checks[0].Path == "/readyz", "there must be a check of /readyz")
	require(strings.HasSuffix(f.Env["TCODER_LISTEN"], fmt.Sprintf(":%d", h.InternalPort)), "TCODER_LISTEN must be on internal_port")
	require(strings.HasPrefix(f.Env["TCODER_LISTEN"], "[::]"), "TCODER_LISTEN must take IPv6: machines come by the private network")
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), f.Build.Dockerfile)); err != nil {
		errs = append(errs, err)
	}
	for name := range f.Env {
		require(!regexp.MustCompile(`KEY|TOKEN|SECRET|REDIS_URL`).MatchString(name), "%s is a secret: fly secrets set", name)
	}

	return errors.Join(errs...)
}

// checkVariables compares names with the README's table of the configuration.
func checkVariables(root string) error {
	name := regexp.MustCompile(`TCODER_[A-Z0-9_]+`)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		return err
	}
	known := name.FindAllString(string(readme), -1)
	var errs []error
	for _, file := range []string{"deploy/Dockerfile", "deploy/compose.yml", "deploy/fly/fly.toml", ".env.example", "docs/deploy.md"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return err
		}
		for _, used := range name.FindAllString(string(text), -1) {
			if !slices.Contains(known, used) {
				errs = append(errs, fmt.Errorf("%s: there is no setting %s", file, used))
			}
		}
	}

	return errors.Join(errs...)
}
