// Package memstore is a [pipeline.Store] in memory: the plain statement of what
// the port promises. It is the model that the adapter for Redis is compared
// with, and the store of tests in fake time and of simulations; nothing of it
// survives the process.
//
// One mutex makes every method one step. There is no goroutine and no timer:
// what time makes due is found by Sweep, as in any store. The clock is the
// caller's, so a store works inside a testing/synctest bubble.
//
// What a caller gives or is given and never changes (specs, plans, probes,
// results, outputs, labels, failures) is shared with the store, not copied.
package memstore
