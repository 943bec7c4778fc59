package ffmpeg

import (
	"strconv"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// ThreadsPerSlot is how many threads the decoder and the filters of a task
// take, and its encoders by encoderThreads: its share of the worker's
// processors. Measured: as many encodes as processors, of one thread each, take
// 7 % less processor time than one of many threads.
func ThreadsPerSlot(slots, cpus int) int { return max(1, cpus/slots) }

// encoderThreads is how many threads the encoder of each rendition takes, of
// those that are encoded: the largest as many as there are, each other as its
// part of all pixels is worth, and two if it is large. FFmpeg feeds the encoders
// in turn, so one of a single thread works in FFmpeg's own, beside the threads
// of the others: a ladder of four has 4 % less processor time on two processors
// than by the encoders' own choice, most of which wait for each other then, and
// is made 2 % sooner. With one thread for its second rendition, FFmpeg's own
// would have more to do than one processor can: 6 % later.
func encoderThreads(encoded []*tcoderv1.RenditionPlan, threads int) []int {
	const large = 4 // times so much is as much as the largest has

	shares := make([]int, len(encoded))
	if threads <= 0 {
		return shares
	}

	pixels := func(r *tcoderv1.RenditionPlan) uint64 { return uint64(r.GetWidth()) * uint64(r.GetHeight()) }

	var most, all uint64
	for _, r := range encoded {
		most, all = max(most, pixels(r)), all+pixels(r)
	}

	for i, r := range encoded {
		share := int((uint64(threads)*pixels(r) + all - 1) / all)
		if large*pixels(r) >= most {
			share = min(threads, max(2, share))
		}

		if pixels(r) == most {
			share = threads
		}

		shares[i] = share
	}

	return shares
}

// codecThreads bounds a decoder, or an encoder that listens to FFmpeg.
func codecThreads(threads int) []string {
	if threads <= 0 {
		return nil
	}

	return []string{"-threads", strconv.Itoa(threads)}
}

// ownThreads bounds an encoder that has an option of its own for it.
func ownThreads(option string, threads int) string {
	if threads <= 0 {
		return ""
	}

	return ":" + option + "=" + strconv.Itoa(threads)
}

// filterThreads bounds the filters. Half as many threads scale pictures as fast, and
// wait less for each other: 0.6 % less processor time for a ladder on two
// processors, and no later. Dearer filters are worth all of them.
func filterThreads(video *tcoderv1.VideoPlan, threads int) []string {
	if threads <= 0 {
		return nil
	}

	if !video.GetDeinterlace() && !video.GetToneMap() {
		threads = max(1, threads/2)
	}

	n := strconv.Itoa(threads)

	return []string{"-filter_threads", n, "-filter_complex_threads", n}
}
