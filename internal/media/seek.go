package media

import (
	"slices"
	"sort"
	"time"
)

// keyframes tells from which keyframe of a source the frames of an output are
// decoded. The zero value knows none.
type keyframes struct {
	table KeyframeTable
	start time.Duration // of the stream, from the source's
	rate  float64       // of the output
}

// keyframesFor returns what is known of the keyframes of an output's stream.
func keyframesFor(p Probe, v VideoPlan) keyframes {
	i := slices.IndexFunc(p.Streams, func(s Stream) bool { return s.Index == v.StreamIndex })
	if i < 0 || p.Streams[i].Keyframes == nil || p.Streams[i].Keyframes.Timescale <= 0 {
		return keyframes{}
	}

	return keyframes{*p.Streams[i].Keyframes, max(0, p.Streams[i].StartTime-p.StartTime), v.FrameRate.Float()}
}

// before is when the last keyframe that is no later than a frame of the output
// is shown, from the source's start. False if there is none that a seek is sure
// to find: seeks go by decoding time, by which the next keyframe may be no
// later than this one is shown.
func (k keyframes) before(frame int64) (time.Duration, bool) {
	const (
		near  = 0.25                 // of a frame: so late it is still the one that is shown
		apart = 2 * time.Millisecond // more than a seek of a worker is rounded by
	)
	scale := float64(k.table.Timescale)
	limit := ((float64(frame)+near)/k.rate - k.start.Seconds()) * scale
	lead := float64(k.table.LeadTicks) + apart.Seconds()*scale
	ticks := k.table.Ticks
	after := sort.Search(len(ticks), func(i int) bool { return float64(ticks[i]) > limit })
	for i := after - 1; i >= 0; i-- {
		if i+1 == len(ticks) || float64(ticks[i+1])-lead > float64(ticks[i]) {
			return k.start + time.Duration(float64(ticks[i])/scale*float64(time.Second)), true
		}
	}

	return 0, false
}
