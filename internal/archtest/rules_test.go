package archtest_test

import (
	"slices"
	"strings"
)

// module is the path of this module; the rules name packages below it.
const module = "github.com/tcoder-dev/tcoder"

// layer says which packages of ours the packages of a folder may import, besides each other.
type layer struct {
	// path is a folder of the module with all below it. A last element "*" stands for each folder there by itself: those
	// don't belong to each other. The longest path that fits a package decides, a plain one before a "*".
	path string
	// may lists packages, or folders with all below them ("gen/go/...").
	may []string
	// stdlibOnly forbids other modules too.
	stdlibOnly bool
	why        string
}

func layers() []layer {
	const (
		gen         = "gen/go/..."
		pipeline    = "internal/pipeline"
		media       = "internal/media"
		objectstore = "internal/objectstore"
		machine     = "internal/machine"
	)

	ports := []string{gen, pipeline, media, objectstore, machine}

	return []layer{
		{
			path: "cmd/tcoder", may: []string{"cmd/tcoder/internal/...", "services/...", "worker/...", "sdk/go/...", "internal/...", gen},
			why: "the one binary is where everything meets",
		},
		{
			path: "cmd/tcoder/internal/client", may: []string{"cmd/tcoder/internal/cli", "sdk/go/...", gen},
			why: "the client's commands are built on the SDK, so that whatever they do a user's program can do",
		},
		{
			path: "cmd/tcoder/internal/cli", may: []string{"sdk/go/...", gen},
			why: "what all commands share knows errors of the SDK, and no part of the product",
		},
		{path: "cmd/genstate", may: []string{pipeline}, why: "it draws the state table"},
		{
			path: "services", may: append([]string{"services/..."}, ports...),
			why: "the control plane knows ports; cmd/tcoder chooses the adapters behind them",
		},
		{
			path: "services/*", may: append([]string{"services/mapper", "services/interceptor"}, ports...),
			why: "services don't import each other, nor adapters: what two of them need belongs to the domain",
		},
		{
			path: "services/mapper", may: []string{gen, pipeline, media, objectstore},
			why: "mapping between wire and domain is pure",
		},
		{
			path: "worker", may: []string{gen, media},
			why: "a worker knows the Attach protocol and presigned URLs: it must run where no state or credential is",
		},
		{path: pipeline, may: []string{media}, stdlibOnly: true, why: "the domain depends on no technology"},
		{path: media, stdlibOnly: true, why: "media maths is pure"},
		{path: "internal/redisstore", may: []string{pipeline, media}, why: "an adapter knows its port only"},
		{path: "internal/memstore", may: []string{pipeline, media}, why: "an adapter knows its port only"},
		{path: objectstore, stdlibOnly: true, why: "a port depends on no technology"},
		{path: "internal/objectstore/*", may: []string{objectstore}, why: "an adapter knows its port only"},
		{path: machine, stdlibOnly: true, why: "a port depends on no technology"},
		{path: "internal/machine/*", may: []string{machine}, why: "an adapter knows its port only"},
		{
			path: "internal/poolsim",
			may:  []string{"services/autoscale", pipeline, media, machine, "internal/machine/scripted", "internal/memstore"},
			why:  "the simulator plays the autoscaler against a cloud and a store in memory, and nothing else",
		},
		{path: "internal/local", why: "it runs other programs and needs nothing of ours"},
		{path: "sdk/go", may: []string{gen}, why: "who uses the SDK compiles the client, not the product"},
		{path: "gen/go", why: "generated code depends on its runtime only"},
		{path: "*", why: "this folder has no layer: give it a line in internal/archtest/rules_test.go"},
		{path: "internal/*", why: "this folder has no layer: give it a line in internal/archtest/rules_test.go"},
	}
}

// isTestCode says whether a package exists for tests: those may import what they like, and nothing of the product may
// import them.
func isTestCode(pkg string) bool {
	for element := range strings.SplitSeq(pkg, "/") {
		if strings.HasSuffix(element, "test") || slices.Contains([]string{"e2e", "bench", "faultproxy", "memhttp"}, element) {
			return true
		}
	}

	return false
}

// testLibraries are for tests alone.
func testLibraries() []string {
	return []string{"testing", "github.com/stretchr/testify", "go.uber.org/goleak", "pgregory.net/rapid", "github.com/google/go-cmp"}
}

// vendor names the folders that alone may import a module, so that its surprises stay in one place.
type vendor struct {
	module string
	owners []string
	why    string
}

func vendors() []vendor {
	return []vendor{
		{"github.com/redis/go-redis", []string{"internal/redisstore", "internal/redistest"}, "every write to Redis is one of redisstore's scripts"},
		{"github.com/aws/aws-sdk-go-v2", []string{"internal/objectstore/s3", "internal/s3test"}, "use the port internal/objectstore"},
		{"github.com/superfly/fly-go", []string{"internal/machine/fly"}, "use the port internal/machine"},
		{"github.com/versity/versitygw", []string{"internal/local/s3d", "internal/s3test"}, "the S3 server is a child process of its own (it changes its folder and has one instance per process)"},
		{"github.com/spf13", []string{"cmd/tcoder"}, "flags are read in cmd/tcoder only"},
		{"flag", []string{"cmd/tcoder", "cmd/genstate", "bench", "internal/s3test/cmd", "internal/pipeline/modeltest"}, "flags are read in cmd/tcoder only"},
		{"github.com/schollz/progressbar", []string{"cmd/tcoder"}, "the terminal is cmd/tcoder's"},
		{"golang.org/x/term", []string{"cmd/tcoder"}, "the terminal is cmd/tcoder's"},
	}
}

// unreachable forbids what may not even come in through another package.
type unreachable struct {
	from    string
	modules []string
	why     string
}

func unreachables() []unreachable {
	return []unreachable{
		{
			"sdk/go",
			[]string{
				"github.com/redis/go-redis", "github.com/aws/aws-sdk-go-v2", "github.com/superfly/fly-go",
				"github.com/versity/versitygw", "github.com/spf13", "cel.dev", "github.com/prometheus",
			},
			"who uses the SDK compiles the client, not the product",
		},
		{
			"worker",
			[]string{
				"github.com/redis/go-redis", "github.com/aws/aws-sdk-go-v2", "github.com/superfly/fly-go",
				"github.com/versity/versitygw",
			},
			"a worker reaches objects by presigned URLs and state by the stream, nothing else",
		},
		{
			"services",
			[]string{"github.com/redis/go-redis", "github.com/aws/aws-sdk-go-v2", "github.com/superfly/fly-go"},
			"the control plane knows ports only",
		},
	}
}

// vagueNames are names that say nothing about what a package is for, and so attract everything.
func vagueNames() []string {
	return []string{"util", "utils", "common", "commons", "helper", "helpers", "types", "misc", "shared", "lib", "base"}
}
