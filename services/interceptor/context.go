package interceptor

import (
	"context"
	"net/http"
	"regexp"

	"github.com/oklog/ulid/v2"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

type (
	requestIDKey struct{}
	projectKey   struct{}
	drainingKey  struct{}
)

// HeaderRequestID carries the id of a request, in both directions.
const HeaderRequestID = "X-Request-ID"

// HeaderRetryAfter says in seconds when a refused call can succeed, as
// ErrorDetail.retry_after does.
const HeaderRetryAfter = "Retry-After"

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// WithRequestID gives every request an id: the one that the client sent, if
// it is short and plain, or a new one. It is answered in the same header.
func WithRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(HeaderRequestID)
		if !requestIDPattern.MatchString(id) {
			id = ulid.Make().String()
		}
		w.Header().Set(HeaderRequestID, id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
	})
}

// RequestID returns the id of the request that ctx belongs to; empty outside
// of one.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)

	return id
}

// WithProject returns a context of a call on behalf of a project.
func WithProject(ctx context.Context, project string) context.Context {
	return context.WithValue(ctx, projectKey{}, project)
}

// Project returns the project that the call's credential belongs to, and
// pipeline.DefaultProject where no credential is asked for.
func Project(ctx context.Context) string {
	if project, ok := ctx.Value(projectKey{}).(string); ok {
		return project
	}

	return pipeline.DefaultProject
}

// WithDraining returns a context whose calls learn from a closed channel that
// the server is shutting down.
func WithDraining(ctx context.Context, draining <-chan struct{}) context.Context {
	return context.WithValue(ctx, drainingKey{}, draining)
}

// Draining returns a channel that is closed when the server begins to shut
// down; a stream should then end with ErrDraining. Outside of a server it is
// nil, which is never ready.
func Draining(ctx context.Context) <-chan struct{} {
	draining, _ := ctx.Value(drainingKey{}).(<-chan struct{})

	return draining
}

// ErrDraining returns the error that ends a stream of a server that is
// shutting down.
func ErrDraining() error {
	return pipeline.NewError(pipeline.ReasonServerDraining, "the server is shutting down")
}
