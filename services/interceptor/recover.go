package interceptor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect"
)

// recoverPanic turns a panic of a handler into an error, so that it costs one
// call and is told like any other fault. http.ErrAbortHandler goes on: it is
// how a handler cuts its connection.
func recoverPanic(log *slog.Logger) around {
	return func(ctx context.Context, spec connect.Spec, next func(context.Context) error) (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if cause, ok := r.(error); ok && errors.Is(cause, http.ErrAbortHandler) {
				panic(r)
			}
			log.ErrorContext(ctx, "panic", "procedure", spec.Procedure, "request_id", RequestID(ctx),
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}()

		return next(ctx)
	}
}
