package interceptor

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// translator turns any error into a Connect error that may leave the process.
type translator struct {
	log      *slog.Logger
	codes    map[pipeline.Reason]connect.Code
	remedies map[pipeline.Reason]string
}

func newTranslator(log *slog.Logger) *translator {
	return &translator{log: log, codes: codes(), remedies: remedies()}
}

// intercept returns the interceptor that translates what handlers return.
func (t *translator) intercept() connect.Interceptor {
	return around(func(ctx context.Context, spec connect.Spec, next func(context.Context) error) error {
		if err := next(ctx); err != nil {
			return t.translate(ctx, spec.Procedure, err)
		}

		return nil
	})
}

// translate returns the Connect error of an error, and logs what the caller
// is not told.
func (t *translator) translate(ctx context.Context, procedure string, err error) *connect.Error {
	code, told := t.classify(ctx, err)
	switch {
	case told.Reason == pipeline.ReasonInternal:
		t.log.ErrorContext(ctx, "call failed", "procedure", procedure, "request_id", RequestID(ctx), "error", err)
	case told.Cause != nil && code != connect.CodeCanceled:
		t.log.WarnContext(ctx, "call refused", "procedure", procedure, "request_id", RequestID(ctx),
			"reason", told.Reason, "error", err)
	}

	return t.encode(ctx, code, told)
}

// classify returns the code and what may be told of an error.
func (t *translator) classify(ctx context.Context, err error) (connect.Code, *pipeline.Error) {
	// First what the caller itself, or the call's deadline, ended: whatever
	// broke because of that is not the news.
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		return endedBy(ended)
	}
	var domain *pipeline.Error
	if errors.As(err, &domain) && domain.Reason != pipeline.ReasonInternal {
		if code, ok := t.codes[domain.Reason]; ok {
			return code, domain
		}
	}
	if spec, ok := errors.AsType[*media.SpecError](err); ok {
		reason := pipeline.Reason(spec.Reason)

		return t.codes[reason], &pipeline.Error{
			Reason: reason, Message: spec.Error(),
			Fields: []pipeline.FieldViolation{{Field: "spec." + spec.Field, Description: spec.Message}},
		}
	}
	if plan, ok := errors.AsType[*media.PlanError](err); ok {
		reason := pipeline.Reason(plan.Reason)

		return t.codes[reason], pipeline.NewError(reason, plan.Message)
	}
	if errors.Is(err, objectstore.ErrUnavailable) {
		return connect.CodeUnavailable, &pipeline.Error{
			Reason: pipeline.ReasonObjectStoreUnavailable, Message: "the object store can't be reached", Cause: err,
		}
	}
	if errors.Is(err, context.Canceled) {
		return endedBy(context.Canceled)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return endedBy(context.DeadlineExceeded)
	}

	return ofProtocol(err)
}

func endedBy(err error) (connect.Code, *pipeline.Error) {
	if errors.Is(err, context.DeadlineExceeded) {
		return connect.CodeDeadlineExceeded, &pipeline.Error{
			Reason: pipeline.ReasonStateUnavailable, Message: "the call didn't end within its deadline", Cause: err,
		}
	}

	return connect.CodeCanceled, pipeline.NewError(pipeline.ReasonCanceled, "the call was canceled by its caller")
}

// ofProtocol classifies what the RPC library found wrong with a call: its
// texts are about the caller's own bytes. All other errors are ours, and not
// for others to read.
func ofProtocol(err error) (connect.Code, *pipeline.Error) {
	internal := &pipeline.Error{Reason: pipeline.ReasonInternal, Message: "internal error"}
	var protocol *connect.Error
	if !errors.As(err, &protocol) {
		return connect.CodeInternal, internal
	}
	switch protocol.Code() {
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted, connect.CodeUnimplemented, connect.CodeNotFound:
		return protocol.Code(), pipeline.NewError(pipeline.ReasonRequestInvalid, protocol.Message())
	case connect.CodeCanceled:
		return endedBy(context.Canceled)
	case connect.CodeDeadlineExceeded:
		return endedBy(context.DeadlineExceeded)
	default:
		return connect.CodeInternal, internal
	}
}

func (t *translator) encode(ctx context.Context, code connect.Code, e *pipeline.Error) *connect.Error {
	detail := &tcoderv1.ErrorDetail{
		Reason:   mapper.ReasonToProto(e.Reason),
		Remedy:   e.Remedy,
		Metadata: e.Metadata,
	}
	if detail.GetRemedy() == "" {
		detail.Remedy = t.remedies[e.Reason]
	}
	for _, f := range e.Fields {
		detail.Fields = append(detail.Fields, &tcoderv1.FieldViolation{Field: f.Field, Description: f.Description})
	}
	after := e.RetryAfter
	if after == 0 {
		after = retryAfter(e.Reason)
	}
	if after > 0 {
		detail.RetryAfter = durationpb.New(after)
	}
	if id := RequestID(ctx); e.Reason == pipeline.ReasonInternal && id != "" {
		detail.Metadata = map[string]string{"request_id": id}
	}
	coded := connect.NewError(code, errors.New(e.Message))
	if after > 0 {
		// In whole seconds and never sooner, for clients that know HTTP alone.
		coded.Meta().Set(HeaderRetryAfter, strconv.Itoa(int((after+time.Second-1)/time.Second)))
	}
	if d, err := connect.NewErrorDetail(detail); err == nil {
		coded.AddDetail(d)
	} else {
		t.log.ErrorContext(ctx, "encode error detail", "request_id", RequestID(ctx), "error", err)
	}

	return coded
}

// WriteError answers a request that never becomes a call with a domain error,
// as the JSON that Connect gives errors and with its HTTP status: whoever
// sent it may speak any protocol or none.
func (c *Chain) WriteError(w http.ResponseWriter, r *http.Request, err *pipeline.Error) {
	asUnary := r.Clone(r.Context())
	asUnary.Method = http.MethodPost
	asUnary.Header.Set("Content-Type", "application/json")
	coded := c.translator.encode(r.Context(), c.translator.codes[err.Reason], err)
	if err := c.errorWriter.Write(w, asUnary, coded); err != nil {
		c.log.DebugContext(r.Context(), "write error", "request_id", RequestID(r.Context()), "error", err)
	}
}
