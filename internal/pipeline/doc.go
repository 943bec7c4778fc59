// Package pipeline is the language of tcoder: uploads, jobs, tasks, leases,
// workers and machines, the states they go through and the port of the store
// that keeps them. It imports the standard library and package media only.
//
// A job is one source turned into outputs. It is cut into tasks; a task is
// run by leasing it to a worker. The number of the lease is its fencing
// token: every write of a worker names it, and a store refuses a stale one.
package pipeline
