// Package crash holds the test that kills, pauses and cuts off every part of a
// cell while it works, and then asks the store whether anything was lost or
// done twice.
//
// The control planes are the real program, the workers the real worker with an
// FFmpeg that only takes time, Redis and the S3 server are real. Networks fail
// in proxies between them. Before an attempt ends well its worker asks the
// test, so that a fault finds the moment in which one does: see gate.
//
// TCODER_CRASH=long runs the long form (`make test-crash`), TCODER_CRASH_SEED
// the plan of an earlier run.
package crash
