// Package archtest holds the rules of who may import whom (docs/architecture.md has the picture) and a test that
// enforces them on what `go list` sees. Each rule carries the reason that a reader of the failure needs.
package archtest
