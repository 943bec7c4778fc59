package modeltest

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// changePool changes settings, mostly of the version that there is.
func (w *world) changePool(t *rapid.T) {
	var c pipeline.PoolChange

	if n := rapid.IntRange(-1, 3).Draw(t, "limit"); n >= 0 {
		c.Limit = &n
	}

	if idle := time.Duration(rapid.IntRange(-1, 2).Draw(t, "idle")) * time.Minute; idle >= 0 {
		c.Idle = &idle
	}

	if regions := rapid.SampledFrom([][]string{nil, {}, {"ams", "fra"}}).Draw(t, "regions"); regions != nil {
		c.Regions = &regions
	}

	version := max(0, w.last.Pool.Version-rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "versions ago"))

	_, _ = w.do(call{"ChangePool", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		ok, err := s.ChangePool(ctx, c, version)

		return ok, ok, err
	}})
}

// reportPool keeps what a leader tells, who may be one no more.
func (w *world) reportPool(t *rapid.T) {
	r := pipeline.PoolReport{
		Desired: rapid.IntRange(0, 3).Draw(t, "desired"), Speed: rapid.SampledFrom([]float64{0, 1.5}).Draw(t, "speed"),
		HoldReason: rapid.SampledFrom([]string{"", "the limit: 100 %"}).Draw(t, "hold reason"),
	}
	if rapid.Bool().Draw(t, "a problem") {
		r.Problems = []pipeline.Problem{{Kind: "CREATE", Message: "it broke: 100 %", MachineID: "m1", Since: w.now, Last: w.now, Times: 2}}
	}

	term := w.term(t)

	_, _ = w.do(call{"ReportPool", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		return nil, "reported", s.ReportPool(ctx, r, term)
	}})
}
