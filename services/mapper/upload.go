package mapper

import (
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// UploadToProto returns the message of an upload. The object store's own
// upload id stays inside.
func UploadToProto(u pipeline.Upload) *tcoderv1.Upload {
	return &tcoderv1.Upload{
		Id:            u.ID,
		JobId:         u.JobID,
		Project:       u.Project,
		State:         enumToProto[tcoderv1.UploadState](tcoderv1.UploadState_value, prefixUploadState, u.State),
		Filename:      u.Filename,
		SizeBytes:     uint64(u.SizeBytes),
		ContentType:   u.ContentType,
		ObjectKey:     u.ObjectKey,
		CreatedAt:     timeToProto(u.Created),
		ExpiresAt:     timeToProto(u.Expires),
		PartSizeBytes: uint64(u.PartSizeBytes),
		PartCount:     uint32(u.PartCount),
	}
}

// SignedRequestToProto returns the message of a signed request.
func SignedRequestToProto(r objectstore.SignedRequest) *tcoderv1.SignedRequest {
	return &tcoderv1.SignedRequest{
		Method:    r.Method,
		Url:       r.URL,
		Headers:   r.Header,
		ExpiresAt: timeToProto(r.ExpiresAt),
	}
}

// PartToProto returns the message of a part that the object store holds.
func PartToProto(p objectstore.Part) *tcoderv1.UploadedPart {
	return &tcoderv1.UploadedPart{
		PartNumber: uint32(p.Number),
		Etag:       p.ETag,
		SizeBytes:  uint64(p.SizeBytes),
	}
}
