package redisstore

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

var update = flag.Bool("update", false, "write the rendered scripts to testdata") //nolint:gochecknoglobals // a flag of the test binary

// TestRenderedScripts guarantees that a change of an include shows in review
// in every script that it changes. A script without a golden fails.
func TestRenderedScripts(t *testing.T) {
	t.Parallel()

	rendered, err := renderScripts(luaFiles)
	require.NoError(t, err)
	require.NotEmpty(t, rendered)

	dir := filepath.Join("testdata", "rendered")

	if *update {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.MkdirAll(dir, 0o755))

		for name, source := range rendered {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name+".lua"), []byte(source), 0o644))
		}
	}

	goldens, err := filepath.Glob(filepath.Join(dir, "*.lua"))
	require.NoError(t, err)
	require.Len(t, goldens, len(rendered), "run go test ./internal/redisstore -run TestRenderedScripts -update")

	for name, source := range rendered {
		want, err := os.ReadFile(filepath.Join(dir, name+".lua"))
		require.NoError(t, err)
		require.Equal(t, string(want), source, "%s: run with -update and review the difference", name)
	}
}

// TestScriptHeaders guarantees that every script states its contract.
func TestScriptHeaders(t *testing.T) {
	t.Parallel()

	names, err := filepath.Glob("lua/*.lua")
	require.NoError(t, err)
	require.NotEmpty(t, names)

	for _, name := range names {
		source, err := os.ReadFile(name)
		require.NoError(t, err)

		for _, part := range []string{"-- KEYS  ", "-- ARGV  ", "-- Returns  "} {
			require.Contains(t, string(source), part, name)
		}

		if !strings.Contains(string(source), "Changes nothing.") {
			require.Contains(t, string(source), "-- Replay   ", name)
		}
	}
}

// TestEveryScriptIsUsed guarantees one script for each verb and none beside.
func TestEveryScriptIsUsed(t *testing.T) {
	t.Parallel()

	scripts, err := loadScripts()
	require.NoError(t, err)

	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)

	used := map[string]bool{}
	call := regexp.MustCompile(`(?:call|Call|callRows|endAttempt)\(ctx, (?:\d+, )?"([a-z_]+)"`)

	for _, name := range sources {
		source, err := os.ReadFile(name)
		require.NoError(t, err)

		for _, match := range call.FindAllStringSubmatch(string(source), -1) {
			used[match[1]] = true
		}
	}

	require.Equal(t, slices.Sorted(maps.Keys(scripts)), slices.Sorted(maps.Keys(used)))
}

// TestIncludes guarantees that an include comes once, where it is first
// named, and that a missing one is an error.
func TestIncludes(t *testing.T) {
	t.Parallel()

	files := fstest.MapFS{
		"lua/a.lua":         {Data: []byte("-- $include(x.lua)\n-- $include(y.lua)\nreturn 'a -- $include(x.lua)'\n")},
		"lua/include/x.lua": {Data: []byte("-- $include(y.lua)\nlocal x\n")},
		"lua/include/y.lua": {Data: []byte("local y\n")},
	}
	rendered, err := renderScripts(files)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "local y\nlocal x\nreturn 'a -- $include(x.lua)'\n"}, rendered)

	files["lua/b.lua"] = &fstest.MapFile{Data: []byte("-- $include(none.lua)\n")}
	_, err = renderScripts(files)
	require.ErrorContains(t, err, "lua/include/none.lua")
}

// TestPrune guarantees that a script is left only the functions that it
// calls, those that these call included, each with its comment.
func TestPrune(t *testing.T) {
	t.Parallel()

	const source = `-- A script.
local function deep() return 1 end -- deep
-- used calls deep, not unused.
local function used()
  return deep()
end

-- unused calls used, and only_here.
local function unused(n)
  return used() + only_here()
end
local function only_here() return 2 end
local function itself() return itself() end
return used()
`

	require.Equal(t, `-- A script.
local function deep() return 1 end -- deep
-- used calls deep, not unused.
local function used()
  return deep()
end

return used()
`, prune(source))
}

// TestTransitionsInLua guarantees that the scripts go by the same tables as
// package pipeline, for every state and every transition.
func TestTransitionsInLua(t *testing.T) {
	t.Parallel()

	url, _ := redistest.New(t)
	opts, err := redis.ParseURL(url)
	require.NoError(t, err)

	client := redis.NewClient(opts)
	t.Cleanup(func() { require.NoError(t, client.Close()) })

	include, err := luaFiles.ReadFile("lua/include/transitions.lua")
	require.NoError(t, err)

	script := redis.NewScript(string(include) + "return next_state(ARGV[1], ARGV[2], ARGV[3]) or ''")

	check := func(machine, from, by, want string) {
		t.Helper()

		got, err := script.Run(t.Context(), client, nil, machine, from, by).Text()
		require.NoError(t, err)
		require.Equal(t, want, got, "%s: %s by %s", machine, from, by)
	}

	checkTable(check, "job", pipeline.JobTransitions())
	checkTable(check, "task", pipeline.TaskTransitions())
	checkTable(check, "upload", pipeline.UploadTransitions())
	checkTable(check, "machine", pipeline.MachineTransitions())
	check("job", "NONSENSE", "retry", "")
}

func checkTable[S, T ~string](
	check func(machine, from, by, want string), machine string, table []pipeline.Transition[S, T],
) {
	states, movements, next := map[S]bool{}, map[T]bool{}, map[S]map[T]S{}

	for _, row := range table {
		states[row.From], states[row.To], movements[row.By] = true, true, true

		if next[row.From] == nil {
			next[row.From] = map[T]S{}
		}

		next[row.From][row.By] = row.To
	}

	for from := range states {
		for by := range movements {
			check(machine, string(from), string(by), string(next[from][by]))
		}
	}
}
