package mapper

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// creation is a request that makes a job.
type creation interface {
	proto.Message
	GetIdempotencyKey() string
}

// AdmissionFromProto returns the terms on which a request is taken in. Its
// fingerprint tells two requests of the same kind apart: all that they say but
// the key.
func AdmissionFromProto(req creation, keyTTL time.Duration, waitingLimit int) (pipeline.Admission, error) {
	terms := pipeline.Admission{WaitingLimit: waitingLimit}
	if req.GetIdempotencyKey() == "" {
		return terms, nil
	}
	bare := proto.Clone(req)
	m := bare.ProtoReflect()
	m.Clear(m.Descriptor().Fields().ByName("idempotency_key"))
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return terms, fmt.Errorf("fingerprint: %w", err)
	}
	sum := sha256.Sum256(raw)
	terms.IdempotencyKey, terms.Fingerprint, terms.KeyTTL = req.GetIdempotencyKey(), hex.EncodeToString(sum[:]), keyTTL

	return terms, nil
}
