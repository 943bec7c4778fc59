package server

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/machine/fly"
	"github.com/tcoder-dev/tcoder/services/autoscale"
)

const (
	flyTokenEnv = "TCODER_FLY_API_TOKEN" //nolint:gosec // a name, not a token

	// defaultFlyLimit is for a pool that costs money.
	defaultFlyLimit = 10
	// drainShare is the part of the kill timeout in which tasks may end by
	// themselves: the others are handed back at once, and that takes time, too.
	drainShare = 4
	// flySlack is what Fly may take beyond the kill timeout.
	flySlack = time.Minute
)

// flySettings say what a machine on Fly is made of.
type flySettings struct {
	app         string
	apiURL      string
	pool        string
	regions     []string
	image       string
	size        string
	serverURL   string
	killTimeout time.Duration
	keepStopped int
	tokenFile   string

	token string
}

func (f *flySettings) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.app, "fly-app", "", "Fly app that the machines of --pool fly belong to")
	flags.StringVar(&f.apiURL, "fly-api-url", "https://api.machines.dev", "address of Fly's Machines API (inside Fly's network: http://_api.internal:4280)")
	flags.StringVar(&f.pool, "fly-pool-name", "tcoder", "name that tells the machines of this pool from others of the app")
	flags.StringSliceVar(&f.regions, "fly-regions", nil, "regions for machines, the preferred first (empty: Fly chooses)")
	flags.StringVar(&f.image, "fly-image", "", "image of the machines, best by its digest; its 'tcoder' is run")
	flags.StringVar(&f.size, "fly-size", "performance-4x", "size of the machines, or size:memory in MB (performance-4x:16384)")
	flags.StringVar(&f.serverURL, "fly-server-url", "", "address by which the machines reach this server, such as http://app.internal:8080")
	flags.DurationVar(&f.killTimeout, "fly-kill-timeout", 2*time.Minute, "time that a machine has to hand back its tasks before it is killed, at most 5m")
	flags.IntVar(&f.keepStopped, "fly-keep-stopped", defaultFlyLimit, "stopped machines that are kept: they start faster than new ones are made")
	flags.StringVar(&f.tokenFile, "fly-token-file", "", "file with the token, instead of "+flyTokenEnv)
	cli.AddSecrets(cmd, cli.Secret{Env: flyTokenEnv, Usage: "token that may create and destroy machines of --fly-app"})
}

// read takes the token.
func (f *flySettings) read(program *cli.Program) error {
	f.token = program.Env(flyTokenEnv)
	if f.tokenFile == "" {
		return nil
	}
	text, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return cli.Usagef("fly-token-file: %s", err)
	}
	f.token = strings.TrimSpace(string(text))

	return nil
}

// provider makes the provider, whose workers get env besides what is needed to
// attach. It makes its calls when their turns come.
func (f *flySettings) provider(env map[string]string, turns fly.Turns) (*fly.Provider, error) {
	size, err := fly.ParseSize(f.size)
	if err != nil {
		return nil, &cli.UsageError{Err: fmt.Errorf("fly-size: %w", err)}
	}
	if f.serverURL == "" {
		return nil, &cli.UsageError{Err: errors.New("--pool fly needs --fly-server-url: machines can't reach this server by its own address")}
	}
	all := map[string]string{
		cli.EnvName("server"): f.serverURL, cli.EnvName("drain-grace"): (f.killTimeout / drainShare).String(),
	}
	maps.Copy(all, env)
	provider, err := fly.New(fly.Config{
		App: f.app, Token: f.token, APIURL: f.apiURL, Pool: f.pool, Regions: f.regions, Image: f.image, Size: size,
		Command: []string{"tcoder", "worker"}, Env: all, KillTimeout: f.killTimeout, UserAgent: "tcoder",
		Pace: fly.SharedPace(turns),
	})
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}

	return provider, nil
}

// adjust fits the autoscaler to how Fly behaves.
func (f *flySettings) adjust(cfg *autoscale.Config) {
	cfg.Settings.KeepStopped, cfg.Settings.Regions = f.keepStopped, f.regions
	cfg.StopTimeout = f.killTimeout + flySlack
}
