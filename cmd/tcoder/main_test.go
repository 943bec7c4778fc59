package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// parseFailure reads the one document that --json prints where there is no job.
func parseFailure(t *testing.T, s *session) (code, reason string) {
	t.Helper()
	var document struct {
		Error struct {
			Code    string `json:"code"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"error"`
	}
	require.NoError(t, json.Unmarshal(s.stdout.Bytes(), &document), s.stdout.String())
	require.NotEmpty(t, document.Error.Message)

	return document.Error.Code, document.Error.Reason
}

// A command line that can't be understood is exit code 2, before any call.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
	}{
		"unknown command":        {args: []string{"frobnicate"}},
		"unknown subcommand":     {args: []string{"jobs", "frobnicate"}},
		"unknown flag":           {args: []string{"jobs", "list", "--frobnicate"}},
		"missing argument":       {args: []string{"transcode"}},
		"too many arguments":     {args: []string{"jobs", "get", "a", "b"}},
		"bad flag value":         {args: []string{"jobs", "list", "--limit", "many"}},
		"bad variable":           {args: []string{"jobs", "list"}, env: map[string]string{"TCODER_LIMIT": "many"}},
		"bad server":             {args: []string{"presets", "--server", "ftp://host"}},
		"unknown state":          {args: []string{"jobs", "list", "--state", "asleep"}},
		"bad pool":               {args: []string{"up", "--pool", "cloud"}},
		"bad log level":          {args: []string{"serve", "--log-level", "loud"}},
		"lease below heartbeats": {args: []string{"serve", "--lease", "1s"}},
		"serve without stores":   {args: []string{"serve"}},
		"store without keys":     {args: []string{"serve", "--redis-url", "redis://127.0.0.1:1", "--s3-endpoint", "http://127.0.0.1:1"}},
		"bad keys":               {args: []string{"serve"}, env: map[string]string{"TCODER_API_KEYS": "team="}},
		"too many slots":         {args: []string{"worker", "--slots", "65"}},
		"no input at all":        {args: []string{"serve", "--max-input-streams", "0"}},
		"bad sandbox":            {args: []string{"worker", "--sandbox", "most"}},
		"bad sandbox user":       {args: []string{"worker"}, env: map[string]string{"TCODER_SANDBOX_USER": "nobody"}},
		"bad worker server":      {args: []string{"worker", "--server", "ftp://host"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSession(c.env)
			require.Equal(t, cli.ExitUsage, s.run(t, c.args...), s.stderr.String())
			require.Contains(t, s.stderr.String(), "error: USAGE: ")
			require.Empty(t, s.stdout.String())
		})
	}
}

// With --json even a wrong command line gives one document.
func TestUsageErrorAsJSON(t *testing.T) {
	t.Parallel()
	s := newSession(nil)
	require.Equal(t, cli.ExitUsage, s.run(t, "jobs", "get", "--json"))
	code, reason := parseFailure(t, s)
	require.Equal(t, "invalid_argument", code)
	require.Equal(t, "USAGE", reason)
}

// A server that isn't there is exit code 3, for every command that calls one.
func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	clip := writeFile(t, "clip.mp4", []byte("film"))
	address := closedAddress(t)
	for _, args := range [][]string{
		{"jobs", "list"}, {"jobs", "watch", "j"}, {"pool"}, {"pool", "workers"}, {"presets"}, {"transcode", clip},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			s := newSession(map[string]string{"TCODER_SERVER": address})
			require.Equal(t, cli.ExitUnreachable, s.run(t, append(args, "--json")...), args)
			code, reason := parseFailure(t, s)
			require.Equal(t, "unavailable", code)
			require.Equal(t, "UNREACHABLE", reason)
			require.Contains(t, s.stderr.String(), "error: UNREACHABLE: ")
		})
	}
}

// A refusal is exit code 1, with the server's reason and remedy.
func TestRefusal(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "jobs", "get", "unknown", "--json"))
	code, reason := parseFailure(t, s)
	require.Equal(t, "not_found", code)
	require.Equal(t, "JOB_NOT_FOUND", reason)
	require.Contains(t, s.stderr.String(), "error: JOB_NOT_FOUND: ")
	require.Contains(t, s.stderr.String(), "look at the list")
}

// A flag wins over its variable, and the variable over the default.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	s := newSession(map[string]string{"TCODER_SERVER": closedAddress(t), "TCODER_JSON": "true", "TCODER_LIMIT": "1"})
	require.Equal(t, cli.ExitOK, s.run(t, "jobs", "list", "--server", strings.TrimPrefix(server.url, "http://")), s.stderr.String())
	list := new(tcoderv1.ListJobsResponse)
	require.NoError(t, protojson.Unmarshal(s.stdout.Bytes(), list))
	require.Len(t, list.GetJobs(), 1)
}

// The API key comes from the environment and goes with every call.
func TestAPIKey(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	s := newSession(map[string]string{"TCODER_SERVER": server.url, "TCODER_API_KEY": "secret"})
	require.Equal(t, cli.ExitOK, s.run(t, "presets"))
	require.Equal(t, []string{"Bearer secret"}, server.keys)
}

// transcode uploads, follows and downloads; standard output is the job alone
// with --json, and the files to open without.
func TestTranscode(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	clip := writeFile(t, "clip.mp4", []byte("film"))
	env := map[string]string{"TCODER_SERVER": server.url}
	dir := filepath.Join(t.TempDir(), "out")

	s := newSession(env)
	require.Equal(t, cli.ExitOK, s.run(t, "transcode", clip, "-p", "hls", "-q", "720p,360p", "--no-copy", "--label", "a=b", "-o", dir, "--json"), s.stderr.String())
	job := new(tcoderv1.Job)
	require.NoError(t, protojson.Unmarshal(s.stdout.Bytes(), job))
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, job.GetState())
	require.Equal(t, "clip.mp4", server.asked.GetFilename())
	require.Equal(t, "hls", server.asked.GetSpec().GetPreset())
	require.Equal(t, []string{"720p", "360p"}, server.asked.GetSpec().GetQualities())
	require.Equal(t, tcoderv1.CopyPolicy_COPY_POLICY_NEVER, server.asked.GetSpec().GetCopy())
	require.Equal(t, map[string]string{"a": "b"}, server.asked.GetLabels())
	got, err := os.ReadFile(filepath.Join(dir, "720p.mp4"))
	require.NoError(t, err)
	require.Equal(t, "film", string(got))

	s = newSession(env)
	require.Equal(t, cli.ExitOK, s.run(t, "transcode", clip, "-o", dir))
	require.Equal(t, filepath.Join(dir, "720p.mp4")+"\n", s.stdout.String())

	s = newSession(env)
	require.Equal(t, cli.ExitOK, s.run(t, "transcode", clip))
	require.Empty(t, s.stdout.String())
	require.Contains(t, s.stderr.String(), "tcoder jobs download j")
}

// - reads standard input.
func TestTranscodeStdin(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	s.stdin = strings.NewReader("a film")
	require.Equal(t, cli.ExitOK, s.run(t, "transcode", "-"), s.stderr.String())
	require.Equal(t, "a film", string(server.stored))
	require.Equal(t, uint64(6), server.asked.GetSizeBytes())

	s = newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "transcode", "-", "--json"))
	_, reason := parseFailure(t, s)
	require.Equal(t, "SIZE_INVALID", reason)
}

// A job that fails is exit code 1, and its document is still the job.
func TestTranscodeOfAFailingJob(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	server.end = &tcoderv1.Job{
		Id: "j", State: tcoderv1.JobState_JOB_STATE_FAILED,
		Failure: &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, Message: "not a video"},
	}
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "transcode", writeFile(t, "a.mp4", []byte("text")), "--json"))
	job := new(tcoderv1.Job)
	require.NoError(t, protojson.Unmarshal(s.stdout.Bytes(), job))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, job.GetFailure().GetReason())
	require.Contains(t, s.stderr.String(), "error: INPUT_NOT_MEDIA: ")

	s = newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "jobs", "watch", "j"))
}

// A file that can't be a video, and a folder that can't be written, are
// refused before any call: nothing listens here.
func TestTranscodeChecksFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := writeFile(t, "file", []byte("x"))
	for _, c := range []struct {
		reason string
		args   []string
	}{
		{"SIZE_INVALID", []string{writeFile(t, "empty.mp4", nil)}},
		{"REQUEST_INVALID", []string{dir}},
		{"REQUEST_INVALID", []string{filepath.Join(dir, "absent.mp4")}},
		{"FAILED", []string{file, "-o", file}},
	} {
		s := newSession(map[string]string{"TCODER_SERVER": closedAddress(t)})
		require.Equal(t, cli.ExitFailed, s.run(t, append([]string{"transcode", "--json"}, c.args...)...))
		_, reason := parseFailure(t, s)
		require.Equal(t, c.reason, reason)
	}
}

// Ctrl-C cancels the job and prints it as it ended.
func TestTranscodeInterrupted(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	server.end = nil
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	go func() {
		<-server.hang
		<-s.signals <- syscall.SIGINT
	}()
	require.Equal(t, cli.ExitFailed, s.run(t, "transcode", writeFile(t, "a.mp4", []byte("film")), "--json"))
	job := new(tcoderv1.Job)
	require.NoError(t, protojson.Unmarshal(s.stdout.Bytes(), job))
	require.Equal(t, tcoderv1.JobState_JOB_STATE_CANCELED, job.GetState())
	require.True(t, server.canceled)
}

// Ctrl-C during a watch ends the watch and leaves the job alone.
func TestWatchInterrupted(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	server.end = nil
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	go func() {
		<-server.hang
		<-s.signals <- syscall.SIGINT
	}()
	require.Equal(t, cli.ExitFailed, s.run(t, "jobs", "watch", "j"))
	require.False(t, server.canceled)
}

// An upload that the server refuses is typed, and leaves nothing to cancel.
func TestTranscodeRefused(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	server.refuse = connect.NewError(connect.CodeInvalidArgument, errors.New("no such preset"))
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitFailed, s.run(t, "transcode", writeFile(t, "a.mp4", []byte("film")), "--json"))
	code, reason := parseFailure(t, s)
	require.Equal(t, "invalid_argument", code)
	require.Equal(t, "INVALID_ARGUMENT", reason)
	require.False(t, server.canceled)
}

// version and completion need nothing.
func TestCommandsWithoutServer(t *testing.T) {
	t.Parallel()
	s := newSession(nil)
	require.Equal(t, cli.ExitOK, s.run(t, "version", "--json"))
	var v cli.Version
	require.NoError(t, json.Unmarshal(s.stdout.Bytes(), &v))
	require.NotEmpty(t, v.Go)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		s = newSession(nil)
		require.Equal(t, cli.ExitOK, s.run(t, "completion", shell))
		require.NotEmpty(t, s.stdout.String())
	}
}

// The shell completes what only the server knows.
func TestCompletion(t *testing.T) {
	t.Parallel()
	server := newScripted(t)
	s := newSession(map[string]string{"TCODER_SERVER": server.url})
	require.Equal(t, cli.ExitOK, s.run(t, "__complete", "transcode", "--server", server.url, "--preset", ""))
	require.Contains(t, s.stdout.String(), "hls\tOne rendition.")
	s = newSession(nil)
	require.Equal(t, cli.ExitOK, s.run(t, "__complete", "jobs", "list", "--state", "r"))
	require.Contains(t, s.stdout.String(), "running")
}
