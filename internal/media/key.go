package media

import (
	"fmt"
	"strconv"
	"strings"
)

// InputKey is where the source of an upload lies in the input bucket.
func InputKey(project, uploadID string) string {
	return "in/" + project + "/" + uploadID + "/source"
}

// JobPrefix is the folder of a job in the output bucket, with the closing slash.
func JobPrefix(project, jobID string) string {
	return "out/public/" + project + "/" + jobID + "/"
}

// OutputPrefix is the folder of an output, with the closing slash. Manifests
// lie in it under stable names.
func OutputPrefix(project, jobID, output string) string {
	return JobPrefix(project, jobID) + output + "/"
}

// AttemptDir is the folder, below its output's, that one attempt of a task
// writes to: a zombie can't touch the objects of another attempt.
func AttemptDir(taskIndex, attempt int) string {
	return fmt.Sprintf("t%da%d", taskIndex, attempt)
}

// TaskID is the id of a job's task by its index.
func TaskID(jobID string, index int) string {
	return jobID + "-" + strconv.Itoa(index)
}

// SplitTaskID takes a task's id apart; ok is false if it isn't one.
func SplitTaskID(id string) (jobID string, index int, ok bool) {
	jobID, number, found := strings.Cut(id, "-")
	index, err := strconv.Atoi(number)

	return jobID, index, found && err == nil && index >= 0 && jobID != "" && TaskID(jobID, index) == id
}
