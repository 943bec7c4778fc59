package redisstore

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Replies of scripts are strings, integers, nils and lists of them. What is
// absent reads as the zero value.

func asString(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	default:
		return ""
	}
}

func asInt(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0
		}

		return n
	default:
		return 0
	}
}

func asFloat(v any) float64 {
	f, err := strconv.ParseFloat(asString(v), 64)
	if err != nil {
		return 0
	}

	return f
}

// asTime reads milliseconds since 1970.
func asTime(v any) time.Time { return timeOf(asInt(v)) }

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}

	return time.UnixMilli(ms).UTC()
}

func asList(v any) []any {
	list, _ := v.([]any)

	return list
}

// asAnswer reads an answer to a request: a list, or a line; see lua/include/request.lua.
func asAnswer(v any) []any {
	line, ok := v.(string)
	if !ok {
		return asList(v)
	}

	answer := make([]any, 0, 3)
	for value := range strings.SplitSeq(line, " ") {
		answer = append(answer, value)
	}

	return answer
}

// decode reads JSON that may be absent.
func decode(raw string, into any) error {
	if raw == "" {
		return nil
	}

	if err := json.Unmarshal([]byte(raw), into); err != nil {
		return internalError("decode", err)
	}

	return nil
}

// encode writes JSON of our own types, which can't fail but for a NaN.
func encode(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", internalError("encode", err)
	}

	return string(raw), nil
}

// encodeOptional is encode, and the empty string for nil.
func encodeOptional[T any](v *T) (string, error) {
	if v == nil {
		return "", nil
	}

	return encode(v)
}

// splitTaskID returns the job and the index that a task's id names.
func splitTaskID(id string) (job string, index int, ok bool) {
	dash := strings.LastIndexByte(id, '-')
	if dash < 1 {
		return "", 0, false
	}

	index, err := strconv.Atoi(id[dash+1:])

	return id[:dash], index, err == nil && index >= 0
}

func taskID(job string, index int) string { return job + "-" + strconv.Itoa(index) }

// member is a task's name in the queues.
func member(job string, index int) string {
	digits := strconv.Itoa(index)

	return job + "-" + strings.Repeat("0", max(0, 5-len(digits))) + digits
}

// memberOf is the member of a lease; "?" for an id that names no task, which nothing holds.
func memberOf(ref pipeline.LeaseRef) string {
	job, index, ok := splitTaskID(ref.TaskID)
	if !ok {
		return "?"
	}

	return member(job, index)
}

// leaseName is a lease's name in the queues; see lua/include/held.lua.
func leaseName(workerID string, ref pipeline.LeaseRef) string {
	return workerID + " " + memberOf(ref) + " " + strconv.Itoa(ref.Attempt)
}
