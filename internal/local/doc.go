// Package local runs the servers tcoder needs on one computer as supervised
// child processes: redis-server and an S3 server.
//
// A child lives in its own process group, so Ctrl-C in a terminal reaches only
// the parent, which stops its children in the order it wants. A child that
// dies is started again with backoff, on the same address and data. When the
// parent dies without a chance to stop anything (kill -9), the kernel sends
// the children SIGTERM (Linux), and a lock on the data keeps the next start
// waiting until they are gone, so two servers never write the same files.
//
// Both servers keep their data across stops, kills and restarts. Neither is
// reachable from other computers.
//
// The constructors start nothing. Run starts the child, returns when ctx ends
// and the child is gone, or with an error when it can't be started at all.
// Ready is closed when the child answered for the first time; addresses are
// valid from then on and stay the same.
package local
