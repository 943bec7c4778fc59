//go:build linux && !amd64 && !arm64

package sandbox

func numbersOfCalls() (callNumbers, bool) { return callNumbers{}, false }
