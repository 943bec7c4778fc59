package interceptor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The codecs are Connect's own but for one thing. Connect decodes a unary
// request before the first interceptor, so a body that can't be decoded would
// be answered past the chain: unlogged, and without an ErrorDetail. Here such
// a body becomes an empty message with a mark that says what is wrong, which
// validation turns into REQUEST_INVALID before any handler.

// faultField is the number of the unknown field that is the mark: the largest
// there is, which no message uses.
const faultField = protowire.MaxValidNumber

// maxFaultBytes bounds how much of a parser's words is repeated to the caller.
const maxFaultBytes = 300

func markFault(m proto.Message, err error) {
	text := cleanFault(err)
	proto.Reset(m)
	mark := protowire.AppendTag(nil, faultField, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendString(mark, text))
}

// decodeFault returns what was wrong with the body of a message that could
// not be decoded.
func decodeFault(m proto.Message) (string, bool) {
	for rest := []byte(m.ProtoReflect().GetUnknown()); len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return "", false
		}
		if number == faultField && kind == protowire.BytesType {
			text, m := protowire.ConsumeString(rest[n:])

			return text, m >= 0
		}
		skipped := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if skipped < 0 {
			return "", false
		}
		rest = rest[n+skipped:]
	}

	return "", false
}

var parserName = regexp.MustCompile(`^proto:[\s\p{Zs}]+`)

func cleanFault(err error) string {
	text := parserName.ReplaceAllString(err.Error(), "")
	if len(text) > maxFaultBytes {
		text = text[:maxFaultBytes] + "..."
	}

	return string(bytes.ToValidUTF8([]byte(text), []byte("?")))
}

func asMessage(v any) (proto.Message, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a message", v)
	}

	return m, nil
}

type binaryCodec struct{}

func (binaryCodec) Name() string { return "proto" }

func (binaryCodec) Marshal(v any) ([]byte, error) { return binaryCodec{}.MarshalAppend(nil, v) }

func (binaryCodec) MarshalAppend(dst []byte, v any) ([]byte, error) {
	m, err := asMessage(v)
	if err != nil {
		return nil, err
	}

	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

func (binaryCodec) MarshalStable(v any) ([]byte, error) {
	m, err := asMessage(v)
	if err != nil {
		return nil, err
	}

	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func (binaryCodec) IsBinary() bool { return true }

func (binaryCodec) Unmarshal(data []byte, v any) error {
	m, err := asMessage(v)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, m); err != nil {
		markFault(m, err)
	}

	return nil
}

type jsonCodec struct{ name string }

func (c jsonCodec) Name() string { return c.name }

func (c jsonCodec) Marshal(v any) ([]byte, error) { return c.MarshalAppend(nil, v) }

func (c jsonCodec) MarshalAppend(dst []byte, v any) ([]byte, error) {
	m, err := asMessage(v)
	if err != nil {
		return nil, err
	}

	return protojson.MarshalOptions{}.MarshalAppend(dst, m)
}

func (c jsonCodec) MarshalStable(v any) ([]byte, error) {
	text, err := c.Marshal(v)
	if err != nil {
		return nil, err
	}
	// protojson varies its white space on purpose.
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}

	return compact.Bytes(), nil
}

func (c jsonCodec) IsBinary() bool { return false }

// Unmarshal ignores unknown fields, so that newer clients can speak to older
// servers.
func (c jsonCodec) Unmarshal(data []byte, v any) error {
	m, err := asMessage(v)
	if err != nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		markFault(m, err)
	}

	return nil
}
