package interceptor

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// access is who may call a procedure.
type access int

const (
	nobody  access = iota // not in the table
	anybody               // tells nothing about anyone's jobs
	client                // holders of an API key
	worker                // holders of the worker token, or of a machine's
)

// accessTable names who may call each procedure. What is missing is refused.
func accessTable() map[string]access {
	return map[string]access{
		tcoderv1connect.UploadServiceCreateUploadProcedure:    client,
		tcoderv1connect.UploadServiceSignUploadPartsProcedure: client,
		tcoderv1connect.UploadServiceCompleteUploadProcedure:  client,
		tcoderv1connect.UploadServiceAbortUploadProcedure:     client,
		tcoderv1connect.UploadServiceGetUploadProcedure:       client,

		tcoderv1connect.JobServiceCreateJobProcedure:         client,
		tcoderv1connect.JobServiceGetJobProcedure:            client,
		tcoderv1connect.JobServiceListJobsProcedure:          client,
		tcoderv1connect.JobServiceWatchJobProcedure:          client,
		tcoderv1connect.JobServiceCancelJobProcedure:         client,
		tcoderv1connect.JobServiceRetryJobProcedure:          client,
		tcoderv1connect.JobServiceDeleteJobProcedure:         client,
		tcoderv1connect.JobServiceListOutputObjectsProcedure: client,
		tcoderv1connect.JobServiceListPresetsProcedure:       client,

		tcoderv1connect.PoolServiceAttachProcedure:       worker,
		tcoderv1connect.PoolServiceSyncProcedure:         worker,
		tcoderv1connect.PoolServiceGetPoolProcedure:      client,
		tcoderv1connect.PoolServiceListWorkersProcedure:  client,
		tcoderv1connect.PoolServiceListMachinesProcedure: client,
		tcoderv1connect.PoolServiceDrainWorkerProcedure:  client,
		tcoderv1connect.PoolServiceDrainMachineProcedure: client,
		tcoderv1connect.PoolServiceWatchPoolProcedure:    client,
		tcoderv1connect.PoolServiceUpdatePoolProcedure:   client,

		// Probes have no key, and the schema is public.
		"/" + grpchealth.HealthV1ServiceName + "/Check":                  anybody,
		"/" + grpchealth.HealthV1ServiceName + "/Watch":                  anybody,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      anybody,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": anybody,
	}
}

// gate refuses calls without the right credential, before a message is
// decoded.
type gate struct {
	table     map[string]access
	projects  map[[sha256.Size]byte]string // by the hash of the key: a look-up tells nothing of the keys by its time
	worker    [sha256.Size]byte
	hasWorker bool
	// workerToken signs the tokens of machines.
	workerToken string
	observer    *observer
	translator  *translator
}

func newGate(cfg Config, o *observer, t *translator) *gate {
	g := &gate{
		table:       accessTable(),
		projects:    make(map[[sha256.Size]byte]string, len(cfg.APIKeys)),
		worker:      sha256.Sum256([]byte(cfg.WorkerToken)),
		hasWorker:   cfg.WorkerToken != "",
		workerToken: cfg.WorkerToken,
		observer:    o,
		translator:  t,
	}
	for key, project := range cfg.APIKeys {
		g.projects[sha256.Sum256([]byte(key))] = project
	}

	return g
}

// check is a connect.RequestGateFunc.
func (g *gate) check(ctx context.Context, spec connect.Spec, _ connect.Peer, header http.Header) (context.Context, error) {
	start := time.Now()
	token, _ := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	if id, is := machineOf(g.workerToken, token); is && g.table[spec.Procedure] == worker {
		return withMachine(WithProject(ctx, pipeline.DefaultProject), id), nil
	}
	project, err := g.admit(spec.Procedure, token)
	if err != nil {
		refusal := g.translator.translate(ctx, spec.Procedure, err)
		g.observer.observe(ctx, spec, start, nil, refusal)

		return nil, refusal
	}

	if g.hasWorker && g.table[spec.Procedure] == worker {
		ctx = withMachine(ctx, "")
	}

	return WithProject(ctx, project), nil
}

func (g *gate) admit(procedure, token string) (project string, err error) {
	hash := sha256.Sum256([]byte(token))
	switch g.table[procedure] {
	case anybody:
		return pipeline.DefaultProject, nil
	case client:
		if len(g.projects) == 0 {
			return pipeline.DefaultProject, nil
		}
		if project, ok := g.projects[hash]; ok {
			return project, nil
		}
		if _, is := machineOf(g.workerToken, token); is || g.hasWorker && hash == g.worker {
			return "", pipeline.NewError(pipeline.ReasonPermissionDenied, "a worker's token doesn't cover this call")
		}
	case worker:
		if g.hasWorker && hash == g.worker || !g.hasWorker && len(g.projects) == 0 {
			return pipeline.DefaultProject, nil
		}
		if _, ok := g.projects[hash]; ok {
			return "", pipeline.NewError(pipeline.ReasonPermissionDenied, "an API key doesn't cover this call; it is for workers")
		}
	case nobody:
		return "", pipeline.NewError(pipeline.ReasonPermissionDenied, "this call is not open to anyone")
	}
	if token == "" {
		return "", pipeline.NewError(pipeline.ReasonUnauthenticated, "no credential was sent")
	}

	return "", pipeline.NewError(pipeline.ReasonUnauthenticated, "the credential is not known")
}
