package media

import "math"

const (
	// defaultRate is for sources that tell no cadence.
	defaultRate = 30
	// fastestRate is the fastest cadence that is believed of a nominal one. Those
	// above it are the ticks of a container's clock, as of WebM's.
	fastestRate = 120
)

// standardRates are the cadences that cameras and broadcasts have.
func standardRates() []Rational {
	return []Rational{
		{24000, 1001},
		{24, 1},
		{25, 1},
		{30000, 1001},
		{30, 1},
		{48, 1},
		{50, 1},
		{60000, 1001},
		{60, 1},
		{100, 1},
		{120000, 1001},
		{120, 1},
	}
}

// outputRate is the constant cadence of the renditions: the source's own,
// halved until it is within maxFPS. A source of variable cadence gets its
// nominal one if that is a standard one, else the standard one above its
// average: pictures that come closer together are lost. Where most of it stands
// still, as a recorded screen does, the average says nothing of what moves.
func outputRate(v Stream, maxFPS float64) Rational {
	rate := sourceRate(v)
	for maxFPS > 0 && rate.Float() > maxFPS*1.001 {
		rate.Den *= 2
	}

	return rate
}

func sourceRate(v Stream) Rational {
	average, nominal := v.FrameRate.Float(), v.NominalFrameRate.Float()
	ticks := nominal > fastestRate*1.001
	switch {
	case ticks:
		nominal = 0
	case interlaced(v) && math.Abs(nominal-2*average) <= 0.01*nominal:
		nominal = average // it counts fields
	}
	switch {
	case average <= 0 && nominal <= 0:
		return Rational{defaultRate, 1}
	case average <= 0:
		average = nominal
	}
	if nominal > 0 && math.Abs(average-nominal) <= 0.01*nominal {
		if std, ok := nearestStandard(nominal); ok {
			return std
		}
		if nominal == v.NominalFrameRate.Float() && v.NominalFrameRate.Den <= 1001 {
			return v.NominalFrameRate
		}
	}
	if std, ok := nearestStandard(nominal); ok && nominal > average && nominal <= 60 {
		return std
	}
	if std, ok := nearestStandard(average); ok {
		return std
	}
	for _, std := range standardRates() {
		if std.Float() >= average {
			if average < standardRates()[0].Float()*0.9 {
				if ticks {
					return Rational{defaultRate, 1}
				}

				break
			}

			return std
		}
	}

	return Rational{int64(max(1, math.Ceil(average-0.01))), 1}
}

// nearestStandard returns the standard rate that fps is a rounding of.
func nearestStandard(fps float64) (Rational, bool) {
	best, found := Rational{}, false
	for _, std := range standardRates() {
		off := math.Abs(std.Float() - fps)
		if off <= 0.0004*fps && (!found || off < math.Abs(best.Float()-fps)) {
			best, found = std, true
		}
	}

	return best, found
}
