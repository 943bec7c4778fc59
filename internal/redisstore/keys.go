package redisstore

import "github.com/tcoder-dev/tcoder/internal/pipeline"

// keys names the keys of a deployment. Those that scripts derive themselves
// are built the same way in lua/include/keys.lua.
type keys struct {
	prefix   string   // hash tag and colon
	common   []string // what every script gets first, in the order of lua/include/keys.lua
	clock    string
	layout   string
	purges   string
	sessions string
	machines string
	pool     string
	wake     string // channel
	notices  string // channel
}

func newKeys(tag string) keys {
	p := "{" + tag + "}:"
	k := keys{
		prefix: p, clock: p + "clock", layout: p + "layout", purges: p + "purges", sessions: p + "sessions", machines: p + "machines",
		pool: p + "pool", wake: p + "wake", notices: p + "notices",
	}

	for _, name := range []string{
		"clock", "sweep", "leases", "delayed", "duties", "uploads", "workers",
		"ring", "parked", "past", "turns", "ended", "held",
	} {
		k.common = append(k.common, p+name)
	}

	return k
}

func (k keys) job(id string) string            { return k.prefix + "j:" + id }
func (k keys) more(id string) string           { return k.prefix + "x:" + id }
func (k keys) spec(id string) string           { return k.prefix + "d:" + id }
func (k keys) probe(id string) string          { return k.prefix + "b:" + id }
func (k keys) plan(id string) string           { return k.prefix + "g:" + id }
func (k keys) outputs(id string) string        { return k.prefix + "o:" + id }
func (k keys) summary(id string) string        { return k.prefix + "s:" + id }
func (k keys) stream(id string) string         { return k.prefix + "c:" + id }
func (k keys) upload(id string) string         { return k.prefix + "u:" + id }
func (k keys) worker(id string) string         { return k.prefix + "w:" + id }
func (k keys) machineWorkers(id string) string { return k.prefix + "mw:" + id }
func (k keys) turn(name string) string         { return k.prefix + "pace:" + name }
func (k keys) jobChannel(id string) string     { return k.prefix + "n:" + id }

func (k keys) index(project string, state pipeline.JobState) string {
	return k.prefix + "i:" + project + ":" + string(state)
}

// idempotency is the key of an idempotency key; each kind of create has its own.
func (k keys) idempotency(kind, project, key string) string {
	return k.prefix + "k:" + kind + ":" + project + ":" + key
}
