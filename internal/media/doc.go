// Package media is the pure part of transcoding: what a spec asks, what a
// source is, the plan that both come to, the playlists and object keys that
// follow from the plan. It runs no program and opens no file, so that the
// control plane and the tests can compute the same plan from the same input.
package media
