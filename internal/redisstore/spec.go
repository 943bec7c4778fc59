package redisstore

import (
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// What never changes of a job is one string: its texts, each behind its
// length, and the outputs that were asked for as JSON. A job's purge is kept as
// the same, with nothing but its project if its source stays; see lua/include/delete.lua.

// encodeSpec packs the half of a job that never changes.
func encodeSpec(j pipeline.Job) (string, error) {
	spec, err := encode(j.Spec)
	if err != nil {
		return "", err
	}

	b := make([]byte, 0, 512)
	for _, text := range []string{j.Project, j.Source.ObjectKey, j.Source.ETag, j.Source.Filename, j.Source.UploadID} {
		b = appendLong(b, text)
	}

	b = appendFields(b, 8, int(j.Source.SizeBytes), 3, len(j.Labels))
	for name, value := range j.Labels {
		b = appendLong(appendLong(b, name), value)
	}

	return string(append(b, spec...)), nil
}

// readSource reads what a spec begins with.
func readSource(r *reader) (project string, s pipeline.Source) {
	project = r.text(3)
	s = pipeline.Source{ObjectKey: r.text(3), ETag: r.text(3), Filename: r.text(3), UploadID: r.text(3)}
	s.SizeBytes = r.uint(8)

	return project, s
}

func appendLong(b []byte, text string) []byte { return append(appendFields(b, 3, len(text)), text...) }

// decodeSpec reads it into a job; nothing if there is none.
func decodeSpec(j *pipeline.Job, packed string) error {
	if packed == "" {
		return nil
	}

	r := reader{raw: packed}
	j.Project, j.Source = readSource(&r)

	for range r.int(3) {
		if j.Labels == nil {
			j.Labels = map[string]string{}
		}

		name := r.text(3)
		j.Labels[name] = r.text(3)

		if r.err != nil {
			break
		}
	}

	if err := r.finish("a spec"); err != nil {
		return err
	}

	return decode(r.raw, &j.Spec)
}
