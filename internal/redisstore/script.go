package redisstore

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var luaFiles embed.FS

var includeLine = regexp.MustCompile(`^-- \$include\(([a-z_]+\.lua)\)$`)

// loadScripts renders every verb of lua/, by its name without the ending.
func loadScripts() (map[string]*redis.Script, error) {
	rendered, err := renderScripts(luaFiles)
	if err != nil {
		return nil, err
	}

	scripts := make(map[string]*redis.Script, len(rendered))
	for name, source := range rendered {
		scripts[name] = redis.NewScript(source)
	}

	return scripts, nil
}

// renderScripts resolves the includes of every lua/*.lua.
func renderScripts(files fs.FS) (map[string]string, error) {
	names, err := fs.Glob(files, "lua/*.lua")
	if err != nil {
		return nil, fmt.Errorf("list scripts: %w", err)
	}

	rendered := make(map[string]string, len(names))

	for _, name := range names {
		var b strings.Builder
		if err := render(files, name, map[string]bool{}, &b); err != nil {
			return nil, err
		}

		rendered[strings.TrimSuffix(path.Base(name), ".lua")] = b.String()
	}

	return rendered, nil
}

// render writes a file, each include replaced by its content where it is first named.
func render(files fs.FS, name string, done map[string]bool, b *strings.Builder) error {
	done[name] = true

	source, err := fs.ReadFile(files, name)
	if err != nil {
		return fmt.Errorf("read script: %w", err)
	}

	for line := range strings.Lines(string(source)) {
		match := includeLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if match == nil {
			b.WriteString(line)

			continue
		}

		include := "lua/include/" + match[1]
		if done[include] {
			continue
		}

		if err := render(files, include, done, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}

	return nil
}
