package media

import (
	"fmt"
	"math"
	"slices"
)

// nearlySource lets a quality that is at most this much above the source's
// short side stand for the source's own size: 480p of a 479-line source.
const nearlySource = 1.02

// maxShortSide bounds a rendition of the source's size: H.264 has no level
// for more that players support.
const maxShortSide = 2160

// A point of the bitrate ladder: the cap of a rendition of this short side
// at up to 30 frames per second.
type ladderPoint struct {
	shortSide  int
	bitrateBPS int
}

func bitrateLadder() []ladderPoint {
	return []ladderPoint{
		{144, 150_000},
		{240, 400_000},
		{360, 800_000},
		{480, 1_400_000},
		{720, 2_800_000},
		{1080, 5_000_000},
		{1440, 9_000_000},
		{2160, 16_000_000},
	}
}

// size is the size of an upright picture with square pixels.
type size struct{ width, height int }

func (s size) short() int { return min(s.width, s.height) }

// uprightSize is the size at which a stream is shown: rotated, with its
// pixels squared.
func uprightSize(v Stream) size {
	s := size{v.Width, v.Height}
	if sar := v.SampleAspectRatio.Float(); sar > 0 {
		s.width = int(math.Round(float64(s.width) * sar))
	}
	if v.RotationDegrees%180 == 90 {
		s.width, s.height = s.height, s.width
	}

	return s
}

// scaledTo is s with the short side brought to n, or just below it: encoders
// of 4:2:0 take even sides only. Neither side grows.
func (s size) scaledTo(n int) size {
	n = max(2, n&^1)
	factor := float64(n) / float64(s.short())
	side := func(pixels int) int {
		return max(2, min(2*int(math.Round(float64(pixels)*factor/2)), pixels&^1))
	}

	return size{side(s.width), side(s.height)}
}

// rungs chooses the renditions of an output, largest first: the asked
// qualities that don't upscale, or one of the source's size. Notes say what
// was left out.
func rungs(o OutputSpec, source size, fps float64) (renditions []RenditionPlan, notes []string) {
	qualities := slices.Clone(o.Qualities)
	slices.SortFunc(qualities, func(a, b string) int { return qualityPixels(b) - qualityPixels(a) })
	for _, q := range qualities {
		n := qualityPixels(q)
		if float64(n) > float64(source.short())*nearlySource {
			notes = append(notes, fmt.Sprintf("%s: left out, the source has %d lines", q, source.short()))

			continue
		}
		renditions = append(renditions, rendition(q, source.scaledTo(min(n, source.short())), fps))
	}
	if len(renditions) == 0 {
		s := source.scaledTo(min(source.short(), maxShortSide))
		renditions = []RenditionPlan{rendition(fmt.Sprintf("%dp", s.short()), s, fps)}
	}

	return renditions, notes
}

func rendition(name string, s size, fps float64) RenditionPlan {
	return RenditionPlan{Name: name, Width: s.width, Height: s.height, VideoBitrateBPS: bitrateFor(s.short(), fps)}
}

// bitrateFor interpolates the ladder, and gives 50 % more to twice the frames.
func bitrateFor(shortSide int, fps float64) int {
	points := bitrateLadder()
	last := points[len(points)-1]
	bps := float64(last.bitrateBPS)
	if shortSide <= points[0].shortSide {
		bps = float64(points[0].bitrateBPS)
	}
	for i := 1; i < len(points); i++ {
		low, high := points[i-1], points[i]
		if shortSide >= low.shortSide && shortSide <= high.shortSide {
			share := float64(shortSide-low.shortSide) / float64(high.shortSide-low.shortSide)
			bps = float64(low.bitrateBPS) + share*float64(high.bitrateBPS-low.bitrateBPS)
		}
	}
	if fps > 30 {
		bps *= 1 + 0.5*min(1, (fps-30)/30)
	}

	return int(math.Round(bps/1000)) * 1000
}
