package interceptor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// validation refuses messages that break the rules of the API before a
// handler sees them: requests, and each message that a stream receives.
type validation struct {
	validator protovalidate.Validator
}

// WrapUnary implements connect.Interceptor.
func (v *validation) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := v.check(req.Any()); err != nil {
			return nil, err
		}

		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor; the chain is for servers.
func (v *validation) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (v *validation) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, &validatedConn{StreamingHandlerConn: conn, validation: v})
	}
}

type validatedConn struct {
	connect.StreamingHandlerConn

	validation *validation
}

func (c *validatedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}

	return c.validation.check(message)
}

func (v *validation) check(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a message", message)
	}
	if fault, ok := decodeFault(m); ok {
		return pipeline.NewError(pipeline.ReasonRequestInvalid, "the request can't be decoded: "+fault)
	}
	err := v.validator.Validate(m)
	if err == nil {
		return nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("validate: %w", err)
	}
	refusal := &pipeline.Error{Reason: pipeline.ReasonRequestInvalid}
	texts := make([]string, 0, len(invalid.Violations))
	for _, violation := range invalid.Violations {
		field := protovalidate.FieldPathString(violation.Proto.GetField())
		description := violation.Proto.GetMessage()
		refusal.Fields = append(refusal.Fields, pipeline.FieldViolation{Field: field, Description: description})
		texts = append(texts, strings.TrimPrefix(field+": "+description, ": "))
	}
	refusal.Message = strings.Join(texts, "; ")

	return refusal
}
