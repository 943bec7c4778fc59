package poolsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// What tasks of a 1080p24 ladder of four rungs were measured to take on one
// kind of core (2026-11-22, FFmpeg 5.1, x264 veryfast, camera footage).
const (
	coreSecondsPerSecond = 1.95 // of source, for all four rungs
	audioPerSecond       = 1.1 / 60
	spread               = 0.09 // of a 12 s chunk: the slowest over the mean
	// taskOverhead is the start of FFmpeg, opening and seeking by URL, and decoding
	// from the keyframe before (10 s apart, at 0.2 core-seconds a second).
	taskOverhead = 200*time.Millisecond + 5*time.Second/5/cores
)

// Ladder is one job: a source of some length, 1080p24 with sound, made into an
// adaptive stream by the plan that a pool of many slots gets.
func Ladder(length time.Duration, seed uint64) Trace {
	dice := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same seed has to give the same trace
	return Trace{
		Name: "ladder-" + length.String(), About: fmt.Sprintf("%s of 1080p, in chunks", length),
		Jobs: []Job{ladder(dice, length, 0)},
	}
}

// WithoutAudio leaves out the tasks that make sound alone.
func (t Trace) WithoutAudio() Trace {
	t.Jobs = slices.Clone(t.Jobs)
	for i := range t.Jobs {
		t.Jobs[i].Tasks = slices.DeleteFunc(slices.Clone(t.Jobs[i].Tasks), func(task Task) bool { return task.Audio })
	}
	return t
}

func ladder(dice *rand.Rand, length, at time.Duration) Job {
	plan := ladderPlan(length)
	var pictures float64 // what the plan guesses, in seconds of one core
	tasks := media.Tasks(plan)
	for _, t := range tasks {
		if !t.Audio {
			pictures += t.Weight
		}
	}
	measured := coreSecondsPerSecond * length.Seconds() / pictures
	j := Job{At: at, Probe: probeTakes}
	for _, t := range tasks {
		if t.Audio { // one thread makes all of it
			takes := time.Duration(audioPerSecond * length.Seconds() * float64(time.Second))
			j.Tasks = append(j.Tasks, Task{Takes: wholeMS(takes + taskOverhead), Weight: t.Weight, Audio: true})
			continue
		}
		seconds := t.Weight * measured * (1 + spread*(2*dice.Float64()-1)) / cores
		j.Tasks = append(j.Tasks, Task{Takes: wholeMS(time.Duration(seconds*float64(time.Second)) + taskOverhead), Weight: t.Weight})
	}
	return j
}

// ladderPlan is the plan that the product makes of such a source.
func ladderPlan(length time.Duration) media.Plan {
	rate := media.Rational{Num: 24, Den: 1}
	frames := int64(length.Seconds() * rate.Float())
	spec, err := media.Resolve(media.Spec{Preset: "hls-adaptive", Copy: media.CopyNever})
	if err != nil {
		panic(err) // the preset is ours
	}
	plan, err := media.MakePlan(media.Probe{
		Format: "mov", Duration: length,
		Streams: []media.Stream{
			{
				Index: 0, Kind: media.StreamVideo, Codec: "h264", Profile: "High", PixelFormat: "yuv420p", Width: 1920, Height: 1080,
				FrameRate: rate, NominalFrameRate: rate, Duration: length, FrameCount: frames,
			},
			{Index: 1, Kind: media.StreamAudio, Codec: "aac", SampleRateHz: 48000, Channels: 2, Duration: length},
		},
	}, spec, media.Limits{}, 64)
	if err != nil {
		panic(err) // so is the source
	}
	return plan
}
