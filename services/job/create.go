package job

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/oklog/ulid/v2"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// CreateJob starts a job on an object that is already in the input bucket.
func (s *Service) CreateJob(ctx context.Context, req *tcoderv1.CreateJobRequest) (*tcoderv1.CreateJobResponse, error) {
	project := interceptor.Project(ctx)
	if err := checkKey(req.GetObjectKey()); err != nil {
		return nil, err
	}
	spec := mapper.SpecFromProto(req.GetSpec())
	if _, err := media.Resolve(spec); err != nil {
		return nil, err
	}
	terms, err := mapper.AdmissionFromProto(req, s.cfg.IdempotencyTTL, s.cfg.WaitingLimit)
	if err != nil {
		return nil, err
	}
	object, err := s.source(ctx, project, req.GetObjectKey())
	if err != nil {
		return nil, err
	}
	j, err := s.deps.Store.CreateJob(ctx, pipeline.Job{
		ID: ulid.Make().String(), Project: project, State: pipeline.JobPending, Spec: spec,
		Source: pipeline.Source{
			ObjectKey: req.GetObjectKey(), SizeBytes: object.SizeBytes, ETag: object.ETag, Filename: path.Base(req.GetObjectKey()),
			UploadID: uploadOf(project, req.GetObjectKey()),
		},
		Priority: int(req.GetPriority()), Labels: req.GetLabels(),
	}, firstTask(), terms)
	if err != nil {
		return nil, err
	}

	return &tcoderv1.CreateJobResponse{Job: s.message(j)}, nil
}

// uploadOf is the upload that an object came by, empty if it didn't: the source
// of an upload stays as long as any job refers to it.
func uploadOf(project, key string) string {
	id := path.Base(path.Dir(key))
	if key != media.InputKey(project, id) {
		return ""
	}

	return id
}

// source looks at the object of a new job.
func (s *Service) source(ctx context.Context, project, key string) (objectstore.ObjectInfo, error) {
	notFound := &pipeline.Error{
		Reason: pipeline.ReasonObjectNotFound, Message: "the input bucket has no object at this key",
		Metadata: map[string]string{"object_key": key},
	}
	// Uploads lie below their project's folder; another project's don't exist
	// for the caller.
	if strings.HasPrefix(key, "in/") && !strings.HasPrefix(key, "in/"+project+"/") {
		return objectstore.ObjectInfo{}, notFound
	}
	most := s.cfg.MaxSizeBytes
	if own, found := s.cfg.ProjectMaxSizeBytes[project]; found {
		most = own
	}
	object, err := s.deps.In.Head(ctx, key)
	switch {
	case errors.Is(err, objectstore.ErrNotFound):
		return objectstore.ObjectInfo{}, notFound
	case err != nil:
		return objectstore.ObjectInfo{}, storeError("head source", err)
	case object.SizeBytes == 0:
		return objectstore.ObjectInfo{}, pipeline.NewError(pipeline.ReasonSizeInvalid, "the object is empty")
	case object.SizeBytes > most:
		return objectstore.ObjectInfo{}, &pipeline.Error{
			Reason:  pipeline.ReasonUploadTooLarge,
			Message: fmt.Sprintf("%d bytes are above the limit of %d", object.SizeBytes, most),
			Metadata: map[string]string{
				"size_bytes":  strconv.FormatInt(object.SizeBytes, 10),
				"limit_bytes": strconv.FormatInt(most, 10),
			},
		}
	}

	return object, nil
}

const maxSegmentBytes = 255

// checkKey refuses a key that no object of ours can have.
func checkKey(key string) error {
	fault := ""
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			fault = "begins or ends with a slash, or has two in a row"
		case segment == "." || segment == "..":
			fault = "holds a . or .. segment"
		case len(segment) > maxSegmentBytes:
			fault = "has a segment of more than 255 bytes"
		case strings.ContainsFunc(segment, unicode.IsControl):
			fault = "holds a control character"
		}
	}
	if fault == "" {
		return nil
	}

	return &pipeline.Error{
		Reason: pipeline.ReasonRequestInvalid, Message: "object_key: the key " + fault,
		Fields: []pipeline.FieldViolation{{Field: "object_key", Description: "the key " + fault}},
	}
}
