package doctor

import (
	"context"

	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// checkSandbox tells of each layer of what FFmpeg is kept in.
func (d *doctor) checkSandbox(ctx context.Context) []finding {
	opened, err := d.sandbox.Open(ctx)
	if err != nil {
		return []finding{fail("sandbox", "take --sandbox auto to see what is missing", "%v", err)}
	}
	d.keeper = opened

	return judgeSandbox(opened.Layers())
}

// judgeSandbox judges what was found: a worker runs without a layer, but what
// takes FFmpeg over runs further.
func judgeSandbox(layers []sandbox.Layer) []finding {
	var findings []finding
	for _, layer := range layers {
		name := "sandbox " + layer.Name
		if layer.Active {
			findings = append(findings, ok(name, "%s", layer.Detail))
		} else {
			findings = append(findings, warn(name, layer.Fix, "missing: %s", layer.Detail))
		}
	}

	return findings
}
