package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
)

var update = flag.Bool("update", false, "write the table of the configuration into README.md") //nolint:gochecknoglobals // a flag of the test

const (
	readme     = "../../README.md"
	tableBegin = "<!-- configuration: written by `go test ./cmd/tcoder -run Configuration -update` -->\n"
	tableEnd   = "<!-- end of configuration -->\n"
)

// configurationTable is the table of the settings of the commands that run
// tcoder, and of those that all clients have.
func configurationTable() string {
	started := false
	root := newRoot(&cli.Program{}, &started)
	var table strings.Builder
	table.WriteString("| flag | environment | default | what | commands |\n|---|---|---|---|---|\n")
	settings := cli.Settings(root)
	slices.SortStableFunc(settings, func(a, b cli.Setting) int { return rank(a) - rank(b) })
	for _, s := range settings {
		if rank(s) == unlisted {
			continue
		}
		flagName := "-"
		if s.Flag != "" {
			flagName = "`--" + s.Flag + "`"
		}
		value := "-"
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		fmt.Fprintf(&table, "| %s | `%s` | %s | %s | %s |\n", flagName, s.Env, value,
			strings.ReplaceAll(s.Usage, "|", `\|`), strings.Join(shorten(s.Commands), ", "))
	}

	return table.String()
}

const unlisted = 100

// rank puts what runs first first.
func rank(s cli.Setting) int {
	for i, command := range []string{"up", "serve", "worker", "presets"} {
		if slices.Contains(s.Commands, command) {
			return i
		}
	}

	return unlisted
}

// shorten names the group where all of its commands have a setting.
func shorten(commands []string) []string {
	if len(commands) > 6 {
		return []string{"all clients"}
	}

	return commands
}

// The README's table of the configuration is what the program takes.
func TestConfigurationInReadme(t *testing.T) {
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), tableBegin)
	require.True(t, found, "README.md lacks the line %q", tableBegin)
	_, after, found := strings.Cut(rest, tableEnd)
	require.True(t, found, "README.md lacks the line %q", tableEnd)
	want := before + tableBegin + configurationTable() + tableEnd + after
	if *update {
		require.NoError(t, os.WriteFile(readme, []byte(want), 0o644))
	} else {
		require.Equal(t, want, string(text), "run: go test ./cmd/tcoder -run Configuration -update")
	}
}

// Every setting has a variable of its own name, and says what it is.
func TestEverySettingIsDescribed(t *testing.T) {
	t.Parallel()
	started := false
	for _, s := range cli.Settings(newRoot(&cli.Program{}, &started)) {
		require.NotEmpty(t, s.Usage, s.Env)
		require.True(t, strings.HasPrefix(s.Env, "TCODER_"), s.Env)
		if s.Flag != "" {
			require.Equal(t, cli.EnvName(s.Flag), s.Env)
		}
	}
}
