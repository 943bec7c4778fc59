package redisstore

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var luaFiles embed.FS

var includeLine = regexp.MustCompile(`^-- \$include\(([a-z_]+\.lua)\)$`)

// loadScripts renders every verb of lua/, by its name without the ending. All
// stores of a process share them: rendering takes tens of milliseconds.
//
//nolint:gochecknoglobals // what is embedded doesn't change
var loadScripts = sync.OnceValues(func() (map[string]*redis.Script, error) {
	rendered, err := renderScripts(luaFiles)
	if err != nil {
		return nil, err
	}

	scripts := make(map[string]*redis.Script, len(rendered))
	for name, source := range rendered {
		scripts[name] = redis.NewScript(source)
	}

	return scripts, nil
})

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

		rendered[strings.TrimSuffix(path.Base(name), ".lua")] = prune(b.String())
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

var functionLine = regexp.MustCompile(`^local function ([a-zA-Z_]+)\(`)

// prune drops the functions of a script that nothing calls: Redis makes each
// anew at every call of the script, which for all of the includes' takes longer
// than a request.
func prune(source string) string {
	blocks := splitBlocks(source)

	for dropped := true; dropped; {
		dropped = false

		words := map[string]int{}
		for _, b := range blocks {
			for _, word := range b.words {
				words[word]++
			}
		}

		blocks = slices.DeleteFunc(blocks, func(b block) bool {
			unused := b.function != "" && words[b.function] == b.count(b.function)
			dropped = dropped || unused

			return unused
		})
	}

	var kept strings.Builder
	for _, b := range blocks {
		kept.WriteString(b.text)
	}

	return kept.String()
}

// block is a function at the top of a script with the comment above it, or a line between functions.
type block struct {
	text     string
	function string // its name, empty of a line
	words    []string
}

func (b block) count(word string) int {
	n := 0

	for _, w := range b.words {
		if w == word {
			n++
		}
	}

	return n
}

var wordPattern = regexp.MustCompile(`[a-zA-Z_]+`)

func splitBlocks(source string) []block {
	var (
		blocks   []block
		comment  string
		function *block
	)

	add := func(b block) {
		code, _, _ := strings.Cut(b.text, "--")
		if b.function != "" {
			code = strings.TrimPrefix(b.text, comment)
		}

		b.words = wordPattern.FindAllString(code, -1)
		blocks = append(blocks, b)
		comment = ""
	}

	for line := range strings.Lines(source) {
		match := functionLine.FindStringSubmatch(line)

		switch {
		case function != nil:
			function.text += line
			if line == "end\n" {
				add(*function)

				function = nil
			}
		case match != nil:
			b := block{text: comment + line, function: match[1]}
			if code, _, _ := strings.Cut(strings.TrimSpace(line), " --"); strings.HasSuffix(code, " end") {
				add(b)
			} else {
				function = &b
			}
		case strings.HasPrefix(line, "--"):
			comment += line
		default:
			if comment != "" {
				add(block{text: comment})
			}

			add(block{text: line})
		}
	}

	if comment != "" {
		add(block{text: comment})
	}

	return blocks
}
