package upload

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	minPartBytes     = 16 << 20
	maxFilenameBytes = 255
	// maxSignedParts is how many parts the answer of one call signs.
	maxSignedParts = 100
)

// partPlan says how a file of a size is cut: equal parts but for the last,
// as R2 demands.
type partPlan struct {
	partBytes int64 // 0: one PUT
	count     int   // 0: one PUT
}

// planParts cuts a file into the smallest parts, of 16 MiB or a power of two
// times it, that stay within the stores' number of parts.
func planParts(sizeBytes, singlePutBytes int64) partPlan {
	if sizeBytes <= singlePutBytes {
		return partPlan{}
	}
	part := int64(minPartBytes)
	for count(sizeBytes, part) > objectstore.MaxParts {
		part *= 2
	}

	return partPlan{partBytes: part, count: int(count(sizeBytes, part))}
}

func count(sizeBytes, partBytes int64) int64 { return (sizeBytes + partBytes - 1) / partBytes }

// partSpan returns where a part of an upload, from 1, begins and how long it is.
func partSpan(u pipeline.Upload, number int) (offset, size int64) {
	offset = int64(number-1) * u.PartSizeBytes

	return offset, min(u.PartSizeBytes, u.SizeBytes-offset)
}

// checkFilename refuses a name that can't be one on some system, or that
// is a path.
func checkFilename(name string) error {
	fault := ""
	switch {
	case name == "":
		fault = "is empty"
	case len(name) > maxFilenameBytes:
		fault = fmt.Sprintf("has %d bytes, %d at most", len(name), maxFilenameBytes)
	case !utf8.ValidString(name):
		fault = "is not valid UTF-8"
	case name == "." || name == "..":
		fault = "is a folder"
	}
	for _, r := range name {
		if fault != "" {
			break
		}
		if r == '/' || r == '\\' {
			fault = "holds a path separator"
		} else if unicode.IsControl(r) {
			fault = "holds a control character"
		}
	}
	if fault == "" {
		return nil
	}

	return &pipeline.Error{
		Reason: pipeline.ReasonFilenameInvalid, Message: "the filename " + fault,
		Fields: []pipeline.FieldViolation{{Field: "filename", Description: "the name " + fault}},
	}
}

// largest is the largest upload of a project.
func (s *Service) largest(project string) int64 {
	if own, found := s.cfg.ProjectMaxSizeBytes[project]; found {
		return min(own, maxObjectBytes)
	}
	return s.cfg.MaxSizeBytes
}

// checkSize refuses a declared size that no upload can have.
func checkSize(declared uint64, maxBytes int64) error {
	if declared == 0 {
		return &pipeline.Error{
			Reason: pipeline.ReasonSizeInvalid, Message: "the size is missing or zero",
			Fields: []pipeline.FieldViolation{{Field: "size_bytes", Description: "must be the exact size of the file, at least 1"}},
		}
	}
	if declared > uint64(maxBytes) {
		return &pipeline.Error{
			Reason: pipeline.ReasonUploadTooLarge, Message: fmt.Sprintf("%d bytes are above the limit of %d", declared, maxBytes),
			Fields:   []pipeline.FieldViolation{{Field: "size_bytes", Description: fmt.Sprintf("must be at most %d", maxBytes)}},
			Metadata: map[string]string{"declared_bytes": fmt.Sprint(declared), "limit_bytes": fmt.Sprint(maxBytes)},
		}
	}

	return nil
}
