package archtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pkg is what `go list` says about a package. Imports leave test files out.
type pkg struct {
	ImportPath string   `json:"ImportPath"`
	Imports    []string `json:"Imports"`
	Deps       []string `json:"Deps"`
}

// TestArchitecture guarantees that every package of the module keeps to the rules in rules_test.go.
func TestArchitecture(t *testing.T) {
	t.Parallel()

	packages := listPackages(t)
	require.NotEmpty(t, packages)
	require.Empty(t, violations(packages), "imports against the rules in internal/archtest/rules_test.go")
}

// TestRulesBite guarantees that each kind of rule finds what it forbids, so that a silent mistake in the rules' reading
// can't make TestArchitecture pass.
func TestRulesBite(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		from, imports, reaches string
		wrong                  string
	}{
		"a service imports another":            {from: "services/job", imports: module + "/services/upload", wrong: "services don't import each other"},
		"a service imports the mapper":         {from: "services/job", imports: module + "/services/mapper"},
		"a service imports an adapter":         {from: "services/job", imports: module + "/internal/objectstore/s3", wrong: "services don't import each other"},
		"the domain imports a library":         {from: "internal/pipeline", imports: "github.com/oklog/ulid/v2", wrong: "no technology"},
		"the domain imports media":             {from: "internal/pipeline", imports: module + "/internal/media"},
		"the domain imports the stdlib":        {from: "internal/pipeline", imports: "time"},
		"a worker imports the domain":          {from: "worker/ffmpeg", imports: module + "/internal/pipeline", wrong: "no state or credential"},
		"the SDK imports the product":          {from: "sdk/go", imports: module + "/internal/media", wrong: "not the product"},
		"Redis outside its owner":              {from: "services/pool", imports: "github.com/redis/go-redis/v9", wrong: "redisstore's scripts"},
		"Redis at its owner":                   {from: "internal/redisstore", imports: "github.com/redis/go-redis/v9"},
		"Redis comes in by a side door":        {from: "worker", reaches: "github.com/redis/go-redis/v9/internal", wrong: "nothing else"},
		"the product imports test code":        {from: "services/pool", imports: module + "/internal/redistest", wrong: "test code"},
		"the product imports a test library":   {from: "worker", imports: "github.com/stretchr/testify/require", wrong: "test code"},
		"a test package imports what it likes": {from: "internal/s3test", imports: module + "/internal/objectstore/s3"},
		"a bucket":                             {from: "internal/util", wrong: "says nothing"},
		"a package without a layer":            {from: "internal/novelty", imports: module + "/internal/media", wrong: "give it a line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			one := pkg{ImportPath: module + "/" + test.from, Imports: filled(test.imports), Deps: filled(test.reaches)}
			found := strings.Join(violations([]pkg{one}), "\n")

			if test.wrong == "" {
				require.Empty(t, found)
			} else {
				require.Contains(t, found, test.wrong)
			}
		})
	}
}

func filled(path string) []string {
	if path == "" {
		return nil
	}

	return []string{path}
}

// violations returns a line for each import that breaks a rule, with the rule's reason.
func violations(packages []pkg) []string {
	var found []string

	for _, pkg := range packages {
		pkg.ImportPath = ours(pkg.ImportPath)
		found = append(found, vendorViolations(pkg)...)

		if slices.Contains(vagueNames(), path.Base(pkg.ImportPath)) {
			found = append(found, pkg.ImportPath+" has a name that says nothing about what it is for")
		}

		if !isTestCode(pkg.ImportPath) {
			found = append(found, layerViolations(pkg)...)
		}
	}

	return found
}

// vendorViolations applies the ownership of other people's modules.
func vendorViolations(pkg pkg) []string {
	var found []string

	for _, vendor := range vendors() {
		owner := slices.ContainsFunc(vendor.owners, func(folder string) bool { return within(pkg.ImportPath, folder) })
		for _, imported := range pkg.Imports {
			if !owner && within(imported, vendor.module) {
				found = append(found, fmt.Sprintf("%s imports %s: %s", pkg.ImportPath, imported, vendor.why))
			}
		}
	}

	for _, rule := range unreachables() {
		if !within(pkg.ImportPath, rule.from) || isTestCode(pkg.ImportPath) {
			continue
		}

		for _, reached := range pkg.Deps {
			if slices.ContainsFunc(rule.modules, func(module string) bool { return within(reached, module) }) {
				found = append(found, fmt.Sprintf("%s reaches %s: %s", pkg.ImportPath, reached, rule.why))
			}
		}
	}

	return found
}

// layerViolations applies the layer that the package belongs to.
func layerViolations(pkg pkg) []string {
	var found []string

	layer, folder := layerOf(pkg.ImportPath)

	for _, imported := range pkg.Imports {
		target := ours(imported)
		_, targetFolder := layerOf(target)

		switch {
		case target == "" && slices.ContainsFunc(testLibraries(), func(module string) bool { return within(imported, module) }),
			target != "" && isTestCode(target):
			found = append(found, fmt.Sprintf("%s imports %s: the product doesn't carry test code", pkg.ImportPath, imported))
		case target == "" && layer.stdlibOnly && strings.Contains(strings.SplitN(imported, "/", 2)[0], "."),
			target != "" && targetFolder != folder && !slices.ContainsFunc(layer.may, func(may string) bool { return matches(target, may) }):
			found = append(found, fmt.Sprintf("%s imports %s: %s", pkg.ImportPath, imported, layer.why))
		}
	}

	return found
}

// layerOf returns the layer that a package of ours belongs to, and the folder it shares with the others there.
func layerOf(pkg string) (layer, string) {
	var (
		best   layer
		folder string
	)

	for _, candidate := range layers() {
		root := candidate.path
		if parent, each := strings.CutSuffix(root, "*"); each {
			rest, below := strings.CutPrefix(pkg, parent)
			if !below || rest == "" {
				continue
			}

			root = parent + strings.SplitN(rest, "/", 2)[0]
		}

		plain := !strings.HasSuffix(candidate.path, "*")
		if within(pkg, root) && (len(root) > len(folder) || len(root) == len(folder) && plain) {
			best, folder = candidate, root
		}
	}

	return best, folder
}

// within says whether a package lies in a folder or module.
func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// matches says whether a package is meant by "path" or by "path/...".
func matches(pkg, pattern string) bool {
	if folder, all := strings.CutSuffix(pattern, "/..."); all {
		return within(pkg, folder)
	}

	return pkg == pattern
}

// ours returns the path of a package in this module, "" for one of another module or of the standard library.
func ours(importPath string) string {
	inside, isOurs := strings.CutPrefix(importPath, module+"/")
	if !isOurs {
		return ""
	}

	return inside
}

// listPackages returns the packages of this module, those that don't compile included.
func listPackages(t *testing.T) []pkg {
	t.Helper()

	var stderr bytes.Buffer

	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"/...")
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)

	var packages []pkg

	decoder := json.NewDecoder(bytes.NewReader(output))
	for decoder.More() {
		var next pkg

		require.NoError(t, decoder.Decode(&next))
		packages = append(packages, next)
	}

	return packages
}
