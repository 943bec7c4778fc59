package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// replies answers every script with what the fuzzer's bytes say: the first so
// many, since a list may go on for as long as the answers say so.
type replies struct {
	data []byte
	left int
}

const answers = 100

func (r *replies) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *replies) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			r.answer(cmd)
		}

		return nil
	}
}

func (r *replies) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		r.answer(cmd)

		return nil
	}
}

// answer keeps to what Redis itself promises of a command's reply.
func (r *replies) answer(cmd redis.Cmder) {
	if r.left--; r.left < 0 {
		r.data = nil
	}

	texts := &replyReader{data: r.data}
	text := func() string { return asString(texts.value(0)) }

	switch c := cmd.(type) {
	case *redis.Cmd:
		c.SetVal(value(r.data))
	case *redis.SliceCmd:
		asked := len(c.Args()) - 1
		if c.Name() == "hmget" {
			asked-- // the hash
		}

		var row []any
		for range asked {
			row = append(row, text())
		}

		c.SetVal(row)
	case *redis.StringCmd:
		c.SetVal(text())
	case *redis.StringSliceCmd:
		c.SetVal([]string{text(), text()})
	}
}

// value reads one reply: a script's is a list, most often of a good answer.
func value(data []byte) any {
	s := &replyReader{data: data}
	list := []any{""}

	for len(s.data) > 0 && len(list) < 40 {
		list = append(list, s.value(4))
	}

	if s.wrap {
		return []any{list, list}
	}

	return list
}

type replyReader struct {
	data []byte
	wrap bool // a list of answers, as calls of many requests get
}

func (s *replyReader) value(depth int) any {
	if len(s.data) == 0 {
		return nil
	}

	kind := s.data[0]
	s.data = s.data[1:]

	switch n := int(kind >> 3); {
	case kind == 0xff:
		s.wrap = true

		return ""
	case kind%8 < 3:
		taken := s.data[:min(n, len(s.data))]
		s.data = s.data[len(taken):]

		return string(taken)
	case kind%8 == 3:
		return []string{"{}", "[]", "[{}]", `{"k":"PROBE"}`, "LEASED 1 2 3 4 5", "RUNNING 1 2", "c1 q2 s3", "job-0", "null", "1"}[n%10]
	case kind%8 == 4:
		return int64(n) - 1
	case kind%8 == 5 || depth == 0:
		return nil
	default:
		list := make([]any, 0, n)
		for range n {
			list = append(list, s.value(depth-1))
		}

		return list
	}
}

// FuzzReplies guarantees that no reply of Redis breaks a reader: records of
// another version, or of another program under the same keys, are errors.
func FuzzReplies(f *testing.F) {
	store, err := New(Config{URL: "redis://127.0.0.1:1"})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, store.Close()) })

	hook := &replies{}
	store.client.AddHook(hook)

	const list, text, number, absent = 6, 3, 4, 5

	for n := range byte(16) {
		row := []byte{n<<3 | list}
		for i := range n {
			row = append(row, i<<3|text)
		}

		f.Add(row)
		f.Add(append([]byte{0xff}, row...))
		f.Add(append([]byte{n<<3 | number, n<<3 | text}, append(row, row...)...))
		f.Add([]byte{1<<3 | list, n<<3 | list, text, number, 7<<3 | list, absent})
	}

	f.Add([]byte("CC^CCC\x1bCK\x15\x15\x15\x15\x03\x03\x13\x1b#+3;CKS")) // a list without an end

	f.Fuzz(func(t *testing.T, data []byte) {
		hook.data, hook.left = data, answers
		ctx, ref := t.Context(), pipeline.LeaseRef{TaskID: "job-0", Attempt: 1}

		for _, call := range []func() error{
			func() error { _, err := store.GetJob(ctx, "job"); return err },
			func() error { _, err := store.ListJobs(ctx, pipeline.JobFilter{Project: "p", Limit: 10}); return err },
			func() error { _, err := store.JobEvents(ctx, "job", 0); return err },
			func() error { _, err := store.GetUpload(ctx, "upload"); return err },
			func() error { _, err := store.ListWorkers(ctx); return err },
			func() error { _, err := store.ListMachines(ctx); return err },
			func() error { _, err := store.PoolStats(ctx); return err },
			func() error { _, _, err := store.AttachWorker(ctx, pipeline.Worker{ID: "w"}, time.Second); return err },
			func() error { _, err := store.ClaimTasks(ctx, pipeline.Claim{WorkerID: "w", Max: 1}); return err },
			func() error {
				_, err := store.RenewLeases(ctx, "w", time.Second, []pipeline.Renewal{{Ref: ref}})
				return err
			},
			func() error { _, _, err := store.FinishTask(ctx, pipeline.TaskResult{Ref: ref}); return err },
			func() error { _, err := store.FailTask(ctx, pipeline.TaskFault{Ref: ref}); return err },
			func() error { _, err := store.ReleaseTask(ctx, "w", ref); return err },
			func() error { _, err := store.Sweep(ctx, pipeline.SweepRequest{Replica: "a"}); return err },
			func() error { _, err := store.ReadStream(ctx, "job", 1, 0); return err },
			func() error { _, err := store.CancelJob(ctx, "job"); return err },
		} {
			if err := call(); err != nil {
				require.NotEmpty(t, pipeline.ReasonOf(err), "%v", err)
			}
		}

		w := &jobWatcher{out: make(chan pipeline.JobNotice, 1)}
		w.notify(string(data))
		require.Len(t, w.out, 1)
		splitTaskID(string(data))
	})
}
