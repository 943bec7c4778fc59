package redisstore

import "github.com/tcoder-dev/tcoder/internal/pipeline"

// keys names the keys of a deployment. Those that scripts derive themselves
// are built the same way in lua/include/keys.lua.
type keys struct {
	prefix   string // hash tag and colon
	clock    string
	sweep    string
	ready    string
	leases   string
	delayed  string
	duties   string
	uploads  string
	workers  string
	purges   string
	sessions string
	machines string
	wake     string // channel
}

func newKeys(tag string) keys {
	p := "{" + tag + "}:"

	return keys{
		prefix: p,
		clock:  p + "clock", sweep: p + "sweep", ready: p + "ready", leases: p + "leases",
		delayed: p + "delayed", duties: p + "duties", uploads: p + "uploads", workers: p + "workers",
		purges: p + "purges", sessions: p + "sessions", machines: p + "machines", wake: p + "wake",
	}
}

// common are the keys that every script gets first.
func (k keys) common() []string {
	return []string{k.clock, k.sweep, k.ready, k.leases, k.delayed, k.duties, k.uploads, k.workers}
}

func (k keys) job(id string) string            { return k.prefix + "j:" + id }
func (k keys) spec(id string) string           { return k.prefix + "d:" + id }
func (k keys) results(id string) string        { return k.prefix + "x:" + id }
func (k keys) upload(id string) string         { return k.prefix + "u:" + id }
func (k keys) worker(id string) string         { return k.prefix + "w:" + id }
func (k keys) held(worker string) string       { return k.prefix + "h:" + worker }
func (k keys) claim(worker, req string) string { return k.prefix + "c:" + worker + ":" + req }
func (k keys) machineWorkers(id string) string { return k.prefix + "mw:" + id }
func (k keys) jobChannel(id string) string     { return k.prefix + "n:" + id }

func (k keys) index(project string, state pipeline.JobState) string {
	return k.prefix + "i:" + project + ":" + string(state)
}

// idempotency is the key of an idempotency key; each kind of create has its own.
func (k keys) idempotency(kind, project, key string) string {
	return k.prefix + "k:" + kind + ":" + project + ":" + key
}
