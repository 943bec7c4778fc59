package pool_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/pool"
)

// credential sends a token with every call.
type credential string

func (c credential) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		req.Header().Set("Authorization", "Bearer "+string(c))
		return next(ctx, req)
	}
}

func (credential) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (credential) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestIdentity: the worker of a machine attaches as that machine and by an id of
// its own alone, and no more once the pool has removed it; the workers' own token is of no machine.
func TestIdentity(t *testing.T) {
	t.Parallel()
	const secret = "workers"
	c := newCell(t)
	svc := pool.New(pool.Config{Provider: "process", Settings: pipeline.PoolSettings{Limit: 3}},
		pool.Deps{Store: c.store, In: c.in, Out: c.out, Log: slog.New(slog.DiscardHandler)})
	chain, err := interceptor.New(interceptor.Config{WorkerToken: secret, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle(svc.Handler(chain.Options(1 << 20)...))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = svc.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	attach := func(token, worker, machine string, session int64) (int64, connect.Code) {
		api := tcoderv1connect.NewPoolServiceClient(server.Client(), server.URL, connect.WithInterceptors(credential(token)))
		res, err := api.Sync(t.Context(), &tcoderv1.SyncRequest{
			Session: session, Hello: &tcoderv1.Hello{WorkerId: worker, MachineId: machine, Slots: 1},
		})
		if err != nil {
			return 0, connect.CodeOf(err)
		}
		return res.GetSession(), 0
	}
	_, err = c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: "m1", Provider: "process"}, 3, 0)
	require.NoError(t, err)
	mine, other := interceptor.MachineToken(secret, "m1"), interceptor.MachineToken(secret, "m2")

	session, code := attach(mine, "w1", "m1", 0)
	require.Zero(t, code)
	_, code = attach(mine, "w1", "m1", session)
	require.Zero(t, code)
	for name, refused := range map[string][2]string{
		"as another machine": {mine, "m2"}, "as none": {mine, ""}, "with another's token": {other, "m1"}, "with the workers' token": {secret, "m1"},
	} {
		_, code = attach(refused[0], "w2", refused[1], 0)
		require.Equal(t, connect.CodePermissionDenied, code, name)
	}
	_, code = attach(other, "w1", "m1", session)
	require.Equal(t, connect.CodePermissionDenied, code, "in another's session")
	_, code = attach(other, "w3", "m2", 0)
	require.Equal(t, connect.CodeUnauthenticated, code, "of a machine that isn't there")
	_, code = attach(secret, "w4", "", 0)
	require.Zero(t, code)
	_, err = c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: "m3", Provider: "process"}, 3, 0)
	require.NoError(t, err)
	for _, taken := range []string{"w1", "w4"} {
		_, code = attach(interceptor.MachineToken(secret, "m3"), taken, "m3", 0)
		require.Equal(t, connect.CodePermissionDenied, code, "by the id of another's worker")
	}

	for _, by := range []pipeline.MachineTransition{pipeline.MachineBreak, pipeline.MachineDestroy} {
		_, err = c.store.MoveMachine(t.Context(), pipeline.MachineMove{ID: "m1", By: by})
		require.NoError(t, err)
		_, code = attach(mine, "w1", "m1", 0)
		require.Equal(t, connect.CodeUnauthenticated, code, "of a machine that is removed")
	}
}
