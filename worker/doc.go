// Package worker runs the pool's tasks: it holds one stream to the control
// plane, reads sources and writes results by presigned URLs alone, and runs
// FFmpeg in between. It knows no storage or state-store credential.
//
// Ownership. A task belongs to the worker from its Assignment until its report
// is acknowledged or the control plane says that the lease is lost. Both lists
// live in one goroutine (loop.go); the executor knows nothing of streams, the
// stream knows nothing of FFmpeg.
//
// What survives. A lost stream changes nothing: tasks go on, the worker
// attaches again, says all that it holds, and sends again every report and
// every request for URLs that got no answer. A killed worker loses everything
// but objects already uploaded; its leases run out and its scratch folder is
// removed by the next worker on the machine.
//
// Stopping. Drain finishes what ends soon and hands the rest back; canceling
// the context of Run stops at once. Neither leaves a process or a file.
package worker
