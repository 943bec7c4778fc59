package ffmpeg

import "strconv"

// ThreadsPerSlot is how many threads each decoder, encoder and filter of a task
// takes on a worker: as many as they like where it is alone, or else an even
// share of the processors. Measured: one encode by automatic threads is done a
// third sooner than by one thread, and as many encodes as processors, of one
// thread each, take 7 % less processor time.
func ThreadsPerSlot(slots, cpus int) int {
	if slots <= 1 {
		return 0
	}

	return max(1, cpus/slots)
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

// filterThreads bounds the filters.
func filterThreads(threads int) []string {
	if threads <= 0 {
		return nil
	}

	n := strconv.Itoa(threads)

	return []string{"-filter_threads", n, "-filter_complex_threads", n}
}
