package redisstore

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// bare makes a script of one that finds neither struct nor cmsgpack.
func bare(source string) string { return strings.ReplaceAll(source, "rawget(_G, ", "rawget({}, ") }

// WithoutLibraries returns what makes stores of those whose scripts find
// neither struct nor cmsgpack.
func WithoutLibraries(t *testing.T) func(*Store) {
	t.Helper()

	rendered, err := renderScripts(luaFiles)
	require.NoError(t, err)

	scripts := map[string]*redis.Script{}
	for name, source := range rendered {
		scripts[name] = redis.NewScript(bare(source))
	}

	return func(s *Store) { s.scripts = scripts }
}

// TestSpareLibraries guarantees that what replaces a missing struct and
// cmsgpack reads and writes what those do.
func TestSpareLibraries(t *testing.T) {
	t.Parallel()

	url, _ := redistest.New(t)
	opts, err := redis.ParseURL(url)
	require.NoError(t, err)

	client := redis.NewClient(opts)
	t.Cleanup(func() { require.NoError(t, client.Close()) })

	include, err := luaFiles.ReadFile("lua/include/binary.lua")
	require.NoError(t, err)

	args, err := appendArgs(nil, []any{
		0, 127, 128, int64(1) << 52, -1, -129, 1.5, -0.25, 1e-320, "", "short", strings.Repeat("m", 200), strings.Repeat("l", 70_000),
		[]any{1, "two", []any{}},
	})
	require.NoError(t, err)

	//nolint:dupword // Lua ends blocks so
	differ := redis.NewScript(bare(string(include)) + `
local real_struct, real_cmsgpack = _G.struct, _G.cmsgpack
local wrong = {}
local function same(what, a, b)
  if cjson.encode(a) ~= cjson.encode(b) then wrong[#wrong + 1] = what end
end
for _, v in ipairs({ 0, 1, -1, 0.1, -1 / 3, 1e300, 1e-310, 2 ^ -1074, 2 ^ 53, 1 / 0, -1 / 0, 99.99 }) do
  same('double ' .. v, struct.pack('>d', v), real_struct.pack('>d', v))
  same('double back ' .. v, struct.unpack('>d', real_struct.pack('>d', v)) == v, true)
end
for _, v in ipairs({ 0, 1, 255, 256, 65535, 65536, 2 ^ 31, 2 ^ 47 + 5 }) do
  for _, f in ipairs({ '>B', '>I2', '>I3', '>I4', '>I6' }) do same(f .. v, struct.pack(f, v), real_struct.pack(f, v)) end
end
for _, v in ipairs({ 0, 5, -1, -32768, 32767 }) do
  same('i2 ' .. v, struct.pack('>i2', v), real_struct.pack('>i2', v))
  same('i2 back ' .. v, { struct.unpack('>i2', real_struct.pack('>i2', v)) }, { v, 3 })
end
local format, raw = '>BI6dBc0i2', real_struct.pack('>BI6dBc0i2', 7, 2 ^ 40, 0.5, 3, 'abc', -2)
same('record', struct.pack(format, 7, 2 ^ 40, 0.5, 3, 'abc', -2), raw)
same('record back', { struct.unpack(format, 'xx' .. raw, 3) }, { real_struct.unpack(format, 'xx' .. raw, 3) })
if pcall(struct.unpack, format, string.sub(raw, 1, -2)) then wrong[#wrong + 1] = 'a short record is read' end
same('request', { cmsgpack.unpack(ARGV[1]) }, { real_cmsgpack.unpack(ARGV[1]) })
local list = { 1790000000000, 'key', '', string.rep('k', 300) }
same('list', { cmsgpack.unpack(cmsgpack.pack(unpack(list))) }, list)
same('list back', { real_cmsgpack.unpack(cmsgpack.pack(unpack(list))) }, list)
return wrong`)
	got, err := differ.Run(t.Context(), client, nil, args).StringSlice()
	require.NoError(t, err)
	require.Empty(t, got)
}
