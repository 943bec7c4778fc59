// Package server holds the commands that run tcoder: the whole stack on one
// computer (up), the control plane (serve), a worker (worker), and the S3
// server that up starts as a child (s3d). It reads their settings and puts the
// parts together; what the parts do is theirs.
//
// What is started first is stopped last: the stores, the control plane, the
// workers. So workers can hand back what they hold, and the control plane can
// write down what it heard. The first Ctrl-C stops in that order, the second
// one kills.
package server
