// Package e2e holds the tests that run the real binary with real Redis, S3
// and FFmpeg: what a user does, and what happens when its parts are killed.
// TCODER_BIN names the binary; without it the tests build one.
package e2e
