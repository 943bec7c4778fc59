// Package interceptor is what every call passes through before and after its
// handler, unary or streaming, in this order:
//
//	request id (HTTP) → authentication (before anything is decoded) →
//	trace → log and metrics → deadline → errors → recover → validation
//
// Nothing is reachable by default: a procedure that the table of access
// doesn't name is refused. Handlers return domain errors; only this package
// turns an error into a Connect error with its ErrorDetail, and a text that
// isn't meant for callers never leaves the process.
//
// It also hands what belongs to a call to its handler by the context: the
// project of its credential (Project), its id (RequestID), and the signal
// that the server is shutting down (Draining).
package interceptor
