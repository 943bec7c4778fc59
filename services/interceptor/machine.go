package interceptor

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// machineTokenPrefix tells a machine's token from other credentials.
const machineTokenPrefix = "machine."

type machineKey struct{}

// MachineToken returns the credential of one machine's worker. It is signed
// with the workers' token, which itself never gets onto a machine, and names
// the machine: its holder can attach as that one alone, and as long as the pool
// has it. Every replica makes and knows the same one, so a creation that was cut
// off can be taken up by another.
func MachineToken(workerToken, machineID string) string {
	mac := hmac.New(sha256.New, []byte(workerToken))
	mac.Write([]byte("tcoder machine " + machineID))

	return machineTokenPrefix + machineID + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// machineOf returns the machine that a token is of; false if it is of none.
func machineOf(workerToken, token string) (string, bool) {
	rest, is := strings.CutPrefix(token, machineTokenPrefix)
	id, _, whole := strings.Cut(rest, ".")
	if !is || !whole || id == "" || workerToken == "" || !hmac.Equal([]byte(token), []byte(MachineToken(workerToken, id))) {
		return "", false
	}

	return id, true
}

// withMachine returns a context of a worker's call; id is empty for the
// worker of no machine.
func withMachine(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, machineKey{}, id)
}

// Machine returns which machine the call's credential is of, empty for the
// worker of no machine; false where no credential is asked for.
func Machine(ctx context.Context) (id string, bound bool) {
	id, bound = ctx.Value(machineKey{}).(string)

	return id, bound
}
