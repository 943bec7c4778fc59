// Package flytest is a Machines API server that keeps its machines in memory:
// what Fly does as far as it is documented or was observed, over HTTP, for
// clients that don't know the difference. One test per fact in facts_test.go
// holds it to that.
//
// It can run a process for each machine (Config.Command), fail on cue (Inject,
// SetRoom, SetQuota, FillHost, StickNext, SetListLag), and knows at any instant
// how many machines there are and how many there have ever been at once
// (Counts). It imports nothing of this module.
//
// Not modelled: volumes, services and the proxy, health checks, secrets, exec,
// processes inside a machine, placement, prices, Fly's DNS and OIDC tokens.
package flytest
