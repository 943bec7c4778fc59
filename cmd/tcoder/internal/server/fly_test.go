package server

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/process"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// flyPool is the settings of a pool on Fly after reading flags and token.
func flyPool(t *testing.T, env map[string]string, args ...string) (*poolSettings, error) {
	t.Helper()
	program := &cli.Program{LookupEnv: func(name string) (string, bool) {
		value, ok := env[name]

		return value, ok
	}}
	p := &poolSettings{fly: &flySettings{}, log: logSettings{level: "info", format: "text"}}
	cmd := &cobra.Command{}
	p.register(cmd, poolNone, 0)
	require.NoError(t, cmd.ParseFlags(append([]string{"--pool", "fly", "--fly-app", "acme", "--fly-image", "i"}, args...)))
	if err := p.fly.read(program); err != nil {
		return nil, err
	}

	return p, p.check()
}

// atOnce is turns that come at once.
func atOnce(context.Context, string, time.Duration, int, time.Duration) (time.Duration, bool, error) {
	return 0, true, nil
}

// TestFlyPool: the machines of --pool fly run a worker that knows the way to
// the server and its credential, and not Fly's token.
func TestFlyPool(t *testing.T) {
	t.Parallel()
	cloud := flytest.New(flytest.Config{App: "acme", Token: "fm2_secret"})
	t.Cleanup(cloud.Close)
	server := httptest.NewServer(cloud)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("fm2_secret\n"), 0o600))
	p, err := flyPool(t, nil, "--fly-token-file", file, "--fly-api-url", server.URL, "--fly-server-url", "http://plane:8080")
	require.NoError(t, err)
	require.Equal(t, defaultFlyLimit, p.limit)
	provider, err := p.fly.provider(p.workerEnv(), atOnce)
	require.NoError(t, err)
	_, err = provider.Create(t.Context(), machine.CreateRequest{ID: "M1", Env: map[string]string{"TCODER_MACHINE_ID": "M1"}})
	require.NoError(t, err)
	body := cloud.Calls(flytest.Create)[0].Body
	for _, part := range []string{
		`"exec":["tcoder","worker"]`, `"TCODER_SERVER":"http://plane:8080"`, `"TCODER_MACHINE_ID":"M1"`,
		`"cpus":4`, `"stop_config":{"timeout":"2m0s","signal":"SIGTERM"}`, `"TCODER_DRAIN_GRACE":"30s"`,
	} {
		require.Contains(t, body, part)
	}
	require.NotContains(t, body, "fm2_secret")
}

// TestFlySettings: what can't work is a mistake of usage, said at the start.
func TestFlySettings(t *testing.T) {
	t.Parallel()
	token := map[string]string{flyTokenEnv: "fm2_secret"}
	for name, test := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"no token":      {nil, []string{"--fly-server-url", "http://plane"}},
		"no token file": {nil, []string{"--fly-token-file", filepath.Join(t.TempDir(), "none")}},
		"no server URL": {token, nil},
		"size":          {token, []string{"--fly-server-url", "http://plane", "--fly-size", "huge"}},
		"kill timeout":  {token, []string{"--fly-server-url", "http://plane", "--fly-kill-timeout", "1h"}},
	} {
		p, err := flyPool(t, test.env, test.args...)
		if err == nil {
			_, err = p.fly.provider(nil, atOnce)
		}
		var usage *cli.UsageError
		require.ErrorAs(t, err, &usage, name)
		require.NotContains(t, err.Error(), "fm2_secret")
	}
	up := &poolSettings{provider: poolFly}
	require.ErrorContains(t, up.check(), "tcoder serve")
}

// TestCheckSettings: regions and sizes that the provider can't do with are
// refused, each by the name of its field.
func TestCheckSettings(t *testing.T) {
	t.Parallel()
	p, err := flyPool(t, map[string]string{flyTokenEnv: "fm2_secret"}, "--fly-server-url", "http://plane")
	require.NoError(t, err)
	provider, err := p.fly.provider(nil, atOnce)
	require.NoError(t, err)
	children, err := process.New(process.Config{Command: []string{"x"}})
	require.NoError(t, err)
	bad := pipeline.PoolSettings{Regions: []string{"fra", "frankfurt"}, EncodeSize: "huge", LightSize: "performance-3x"}
	for _, test := range []struct {
		provider machine.Provider
		settings pipeline.PoolSettings
		fields   []string
	}{
		{provider, bad, []string{"regions.names[1]", "encode_size", "light_size"}},
		{provider, pipeline.PoolSettings{Regions: []string{"fra", "iad"}, EncodeSize: "performance-4x:16384"}, nil},
		{children, bad, []string{"regions.names[0]", "regions.names[1]", "encode_size", "light_size"}},
		{children, pipeline.PoolSettings{Limit: 3}, nil},
	} {
		err := (&machines{provider: test.provider}).checkSettings(test.settings)
		if test.fields == nil {
			require.NoError(t, err)

			continue
		}
		var refused *pipeline.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, pipeline.ReasonRequestInvalid, refused.Reason)
		var fields []string
		for _, f := range refused.Fields {
			fields = append(fields, f.Field)
			require.NotEmpty(t, f.Description)
		}
		require.Equal(t, test.fields, fields)
	}
}
