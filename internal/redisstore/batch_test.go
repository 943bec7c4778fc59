package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

const (
	batchLease = 30 * time.Second
	batchMost  = 6 // requests in a call
)

// TestBatches guarantees that a call with many requests does what they do one
// by one: the same answers, and the same bytes in Redis. Two differences are
// meant: a claim that comes twice in a call has one answer, even if it asks for
// something else the second time; and one that comes again is answered though
// two newer ones of its worker are before it in the call.
func TestBatches(t *testing.T) {
	t.Parallel()
	checkPairs(t, func(*Store) {})
}

// TestGeneralWay guarantees that a result that leads to nothing more does the
// same by the way of those that do.
func TestGeneralWay(t *testing.T) {
	t.Parallel()

	rendered, err := renderScripts(luaFiles)
	require.NoError(t, err)

	const frequent = "answers[i] = not others[jobs[i]] and finish(r, jobs[i])"

	source := strings.Replace(rendered["finish_task"], frequent, "answers[i] = false", 1)
	require.NotEqual(t, rendered["finish_task"], source)
	checkPairs(t, func(s *Store) {
		s.scripts = maps.Clone(s.scripts)
		s.scripts["finish_task"] = redis.NewScript(source)
	})
}

// checkPairs compares what is asked one by one, of a store that is changed, with what is asked together.
func checkPairs(t *testing.T, change func(apart *Store)) {
	t.Helper()

	url, tag := redistest.New(t)
	cases := 0

	rapid.Check(t, func(r *rapid.T) {
		cases++
		p := newPair(t, url, fmt.Sprintf("%s-%d", strings.Trim(tag, "{}"), cases))
		defer p.close(t)

		change(p.apart)
		r.Repeat(map[string]func(*rapid.T){
			"create":   p.batchOf("create_job", p.create),
			"claim":    p.batchOf("claim_tasks", p.claim),
			"renew":    p.batchOf("renew_leases", p.renew),
			"commit":   p.batchOf("commit_segments", p.commit),
			"finish":   p.batchOf("finish_task", p.finish),
			"complete": p.batchOf("complete_job", p.complete),
			"alone":    p.alone,
			"time":     p.timePasses,
			"":         func(r *rapid.T) { require.Equal(r, p.dump(r, p.apart), p.dump(r, p.together)) },
		})
	})
}

// pair are two stores of the same history: one that is asked one thing at a
// time, and one that gets what is of one verb in one call.
type pair struct {
	apart, together *Store
	now             time.Time
	limit           int // of running tasks of a project

	workers []string
	session map[string]int64
	jobs    []string
	claims  map[string]pipeline.Claim // the last of each worker
	asked   map[string]int            // claims of each worker
	leases  []pipeline.Lease
	holders map[pipeline.LeaseRef]string
	serial  int
}

// ask is a request with its answer in a form that can be compared.
type ask func(ctx context.Context, s *Store) (any, error)

func newPair(t *testing.T, url, tag string) *pair {
	t.Helper()

	p := &pair{
		session: map[string]int64{}, claims: map[string]pipeline.Claim{}, asked: map[string]int{}, holders: map[pipeline.LeaseRef]string{},
		now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}

	var err error
	p.apart, err = New(Config{URL: url, Tag: tag + "-apart"})
	require.NoError(t, err)
	p.together, err = New(Config{URL: url, Tag: tag + "-together"})
	require.NoError(t, err)

	p.apart.jitter = func() float64 { return 0.5 }
	p.together.jitter = p.apart.jitter
	p.setClock(t)

	for _, id := range []string{"w", "w1", "w12"} {
		p.workers = append(p.workers, id)
		p.each(t, func(ctx context.Context, s *Store) (any, error) {
			session, _, err := s.AttachWorker(ctx, pipeline.Worker{ID: id}, batchLease)
			p.session[id] = session

			return session, err
		})
	}

	return p
}

// close removes what the case left, which would be in the next one's way.
func (p *pair) close(t *testing.T) {
	t.Helper()

	for _, s := range []*Store{p.together, p.apart} {
		keys, err := s.client.Keys(context.Background(), s.keys.prefix+"*").Result()
		require.NoError(t, err)
		require.NoError(t, s.client.Unlink(context.Background(), keys...).Err())
		require.NoError(t, s.Close())
	}
}

func (p *pair) setClock(t require.TestingT) {
	for _, s := range []*Store{p.apart, p.together} {
		require.NoError(t, s.StopClock(context.Background(), p.now))
	}
}

// each asks both stores, which must give the same answer.
func (p *pair) each(t require.TestingT, f ask) {
	first, firstErr := f(context.Background(), p.apart)
	second, secondErr := f(context.Background(), p.together)
	require.Equal(t, first, second)
	require.Equal(t, reasonOf(firstErr), reasonOf(secondErr))
}

// reasonOf is the reason of an expected refusal; what else went wrong is told in full.
func reasonOf(err error) string {
	if known, ok := errors.AsType[*pipeline.Error](err); ok {
		return string(known.Reason)
	}

	return fmt.Sprint(err)
}

// batchOf draws requests, and gives them to one store one by one, to the other in one call.
func (p *pair) batchOf(verb string, draw func(r *rapid.T) (ask, func(answer any))) func(r *rapid.T) {
	return func(r *rapid.T) {
		var (
			asks  []ask
			learn []func(any)
		)

		for range rapid.IntRange(1, batchMost).Draw(r, "requests") {
			f, l := draw(r)
			asks, learn = append(asks, f), append(learn, l)
		}

		ctx := context.Background()
		apart, together := make([]string, len(asks)), make([]string, len(asks))

		for i, f := range asks {
			answer, err := f(ctx, p.apart)
			apart[i] = fmt.Sprintf("%+v %s", answer, reasonOf(err))

			if err == nil && learn[i] != nil {
				learn[i](answer)
			}
		}

		var wg sync.WaitGroup

		waiting, release := hold(r, p.together, verb)
		for i, f := range asks {
			wg.Go(func() {
				answer, err := f(ctx, p.together)
				together[i] = fmt.Sprintf("%+v %s", answer, reasonOf(err))
			})
			waiting(i + 1)
		}

		release()
		wg.Wait()
		require.Equal(r, apart, together)
	}
}

func (p *pair) worker(r *rapid.T) string { return rapid.SampledFrom(p.workers).Draw(r, "worker") }

func (p *pair) create(r *rapid.T) (ask, func(any)) {
	p.serial++
	id := fmt.Sprintf("j%03d", p.serial)

	if len(p.jobs) > 0 && rapid.IntRange(0, 5).Draw(r, "new") == 0 {
		id = rapid.SampledFrom(p.jobs).Draw(r, "again")
	}

	j := projectJob(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "project"), id)
	j.Priority = rapid.SampledFrom([]int{0, 0, 0, 7, -3}).Draw(r, "priority")
	a := pipeline.Admission{WaitingLimit: rapid.SampledFrom([]int{0, 0, 3}).Draw(r, "limit")}

	if rapid.Bool().Draw(r, "idempotent") {
		a.IdempotencyKey = rapid.SampledFrom([]string{"k1", "k2", id}).Draw(r, "key")
		a.Fingerprint, a.KeyTTL = rapid.SampledFrom([]string{"f", "f", "g"}).Draw(r, "fingerprint"), time.Minute
	}

	p.jobs = append(p.jobs, id)

	return func(ctx context.Context, s *Store) (any, error) {
		got, err := s.CreateJob(ctx, j, pipeline.NewTask{Kind: pipeline.KindEncode, Output: "mp4", Weight: 2}, a)

		return got.ID, err // how that of a replay is meanwhile isn't its answer
	}, nil
}

func (p *pair) claim(r *rapid.T) (ask, func(any)) {
	worker := p.worker(r)
	p.asked[worker]++
	c := pipeline.Claim{ // another worker's request may have the same id
		RequestID: fmt.Sprintf("r%03d", p.asked[worker]), WorkerID: worker, Session: p.session[worker],
		Max: rapid.IntRange(0, 3).Draw(r, "max"), Lease: batchLease, RunningLimit: p.limit,
	}

	if rapid.IntRange(0, 9).Draw(r, "session") == 0 {
		c.Session--
	}

	// A worker asks again for what it asked last.
	if last, asked := p.claims[worker]; asked && rapid.IntRange(0, 4).Draw(r, "new") == 0 {
		c = last
		c.RunningLimit = p.limit // of different ones in a call the last holds
	}

	p.claims[worker] = c

	return func(ctx context.Context, s *Store) (any, error) {
			got, err := s.ClaimTasks(ctx, c)

			var leases []string
			for _, l := range got.Leases {
				leases = append(leases, fmt.Sprintf("%+v %s %s", l.Ref, l.Expires, l.Job.Project))
			}

			// What its job has become of meanwhile, and whether there is more, is told as it is in the end.
			return claimAnswer{leases, got.Refused, got.Leases}, err
		}, func(answer any) {
			given, _ := answer.(claimAnswer)
			p.leases = append(p.leases, given.raw...)

			for _, l := range given.raw {
				p.holders[l.Ref] = c.WorkerID
			}
		}
}

// claimAnswer is what is compared of an answer to a claim.
type claimAnswer struct {
	leases  []string
	refused bool
	raw     []pipeline.Lease
}

func (a claimAnswer) String() string { return fmt.Sprint(a.leases, a.refused) }

// lease draws one that was given once, and who says to hold it.
func (p *pair) lease(r *rapid.T) (pipeline.LeaseRef, string) {
	if len(p.leases) == 0 {
		return pipeline.LeaseRef{TaskID: "none-0", Attempt: 1}, p.worker(r)
	}

	ref := rapid.SampledFrom(p.leases).Draw(r, "lease").Ref
	holder := p.holders[ref]

	switch rapid.IntRange(0, 14).Draw(r, "truth") {
	case 0:
		holder = p.worker(r)
	case 1:
		ref.Attempt++
	}

	return ref, holder
}

func (p *pair) renew(r *rapid.T) (ask, func(any)) {
	worker := p.worker(r)
	fraction := rapid.Float64Range(0, 1).Draw(r, "fraction")
	lease := rapid.SampledFrom([]time.Duration{batchLease, batchLease, 10 * time.Second}).Draw(r, "length")

	var rs []pipeline.Renewal

	for range rapid.IntRange(0, 3).Draw(r, "leases") {
		ref, holder := p.lease(r)
		if rapid.Bool().Draw(r, "its own") {
			worker = holder
		}

		rs = append(rs, pipeline.Renewal{Ref: ref, Fraction: fraction, Progress: pipeline.Progress{FPS: 25}})
	}

	return func(ctx context.Context, s *Store) (any, error) { return s.RenewLeases(ctx, worker, lease, rs) }, nil
}

func (p *pair) commit(r *rapid.T) (ask, func(any)) {
	ref, worker := p.lease(r)
	c := pipeline.SegmentCommit{Ref: ref, WorkerID: worker, Output: "hls", Uploaded: []media.UploadedSegments{{
		Rendition: media.RenditionResult{Name: rapid.SampledFrom([]string{"720p", "audio"}).Draw(r, "rendition")},
		First:     rapid.IntRange(0, 2).Draw(r, "first"),
		Segments:  make([]media.EncodedObject, rapid.IntRange(1, 2).Draw(r, "segments")),
	}}}

	return func(ctx context.Context, s *Store) (any, error) { return s.CommitSegments(ctx, c) }, nil
}

func (p *pair) finish(r *rapid.T) (ask, func(any)) {
	ref, worker := p.lease(r)
	result := pipeline.TaskResult{Ref: ref, WorkerID: worker}

	switch rapid.IntRange(0, 3).Draw(r, "result") {
	case 0:
		result.Probe = &media.Probe{}
		for range rapid.IntRange(1, 3).Draw(r, "tasks") {
			result.Tasks = append(result.Tasks, pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Weight: 1})
		}

		result.Tasks = append(result.Tasks, pipeline.NewTask{Kind: pipeline.KindAssemble, Output: "hls", After: []int{0}})
	case 1:
		result.Outputs = []media.Output{{Name: "mp4", Kind: media.KindMP4, Objects: make([]media.OutputObject, 20)}}
	default:
		result.Result = &media.EncodeResult{}
	}

	return func(ctx context.Context, s *Store) (any, error) {
		v, last, err := s.FinishTask(ctx, result)

		return fmt.Sprint(v, last), err
	}, nil
}

func (p *pair) complete(r *rapid.T) (ask, func(any)) {
	id := "none"
	if len(p.jobs) > 0 {
		id = rapid.SampledFrom(p.jobs).Draw(r, "job")
	}

	run := rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(r, "run")

	return func(ctx context.Context, s *Store) (any, error) {
		return s.CompleteJob(ctx, id, run, []media.Output{{Name: "hls"}})
	}, nil
}

// alone is what isn't called together with others.
func (p *pair) alone(r *rapid.T) {
	ref, worker := p.lease(r)
	job := "none"

	if len(p.jobs) > 0 {
		job = rapid.SampledFrom(p.jobs).Draw(r, "job")
	}

	switch rapid.SampledFrom([]string{"release", "fail", "cancel", "limit", "sweep"}).Draw(r, "verb") {
	case "release":
		p.each(r, func(ctx context.Context, s *Store) (any, error) { return s.ReleaseTask(ctx, worker, ref) })
	case "fail":
		p.each(r, func(ctx context.Context, s *Store) (any, error) {
			return s.FailTask(ctx, pipeline.TaskFault{Ref: ref, WorkerID: worker, Class: pipeline.FaultMachine, Retry: pipeline.DefaultRetryPolicy()})
		})
	case "cancel":
		p.each(r, func(ctx context.Context, s *Store) (any, error) { return s.CancelJob(ctx, job) })
	case "limit":
		p.limit = rapid.IntRange(0, 3).Draw(r, "running")
	case "sweep":
		p.each(r, func(ctx context.Context, s *Store) (any, error) {
			return s.Sweep(ctx, pipeline.SweepRequest{Replica: "r", LeaderTTL: time.Minute, Lease: batchLease, Retry: pipeline.DefaultRetryPolicy()})
		})
	}
}

func (p *pair) timePasses(r *rapid.T) {
	p.now = p.now.Add(rapid.SampledFrom([]time.Duration{
		time.Millisecond, 700 * time.Millisecond, 3 * time.Second, batchLease,
	}).Draw(r, "time"))
	p.setClock(r)
}

// dump is all that a store has, key by key without the tag, but for the
// clock, and how many calls it took to note which idempotency keys expire.
func (p *pair) dump(r *rapid.T, s *Store) map[string]string {
	const script = `
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'zset' then
    value = table.concat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), '\n')
  elseif kind == 'hash' then
    local fields = redis.call('HGETALL', key)
    local lines = {}
    for i = 1, #fields, 2 do lines[#lines + 1] = fields[i] .. '=' .. fields[i + 1] end
    table.sort(lines)
    value = table.concat(lines, '\n')
  elseif kind == 'list' then
    value = table.concat(redis.call('LRANGE', key, 0, -1), '\n')
  else
    value = redis.call('GET', key)
  end
  all[#all + 1], all[#all + 2] = string.sub(key, #ARGV[1] + 1), value
end
return all`

	pairs, err := s.client.Eval(context.Background(), script, nil, s.keys.prefix).StringSlice()
	require.NoError(r, err)

	all := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}

	delete(all, "clock")
	delete(all, "expiring")

	return all
}
