// Package services is the control plane: the API on one port, and the loops
// that work without a caller. It runs no FFmpeg and touches no video.
//
// A Server puts the three services of the API behind one chain (package
// interceptor) and one HTTP server that speaks Connect, gRPC and gRPC-Web
// over HTTP/1.1 and HTTP/2 without TLS; a proxy in front adds TLS. All state
// is in the stores: any number of servers may run on the same ones, and one
// that stops or dies takes nothing along.
package services
