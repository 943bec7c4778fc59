// Package ffmpeg runs FFmpeg for the worker: it finds out what a source is,
// builds the argument list of an encode, runs and watches the process, and
// measures what came out.
//
// A source is hostile until proven otherwise. The programs read it from one
// loopback URL that the caller serves, with an allow-list of protocols and
// demuxers, so that a playlist or a script in disguise is refused without a
// connection; they run with an empty environment, in a process group of their
// own that dies with this process, under bounds on time, memory per frame,
// processor seconds and file size.
//
// Every error is a *Fault, which says whose fault it was and a reason for the
// user, or the context's error when the caller cancelled.
package ffmpeg
