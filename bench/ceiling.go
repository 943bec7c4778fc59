package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

const (
	ceilingJobs    = 12_000
	ceilingCallers = 2048
)

// recording is what the store sent over the wire for a number of jobs.
type recording struct {
	prepare  []byte // attaching the callers, and a warm-up that loads the scripts
	prepared int    // commands in it
	measured []byte
	commands int
	ids      []string
}

// recorder is a tap that sends the commands of all connections over one, one
// at a time, so that their order is known. It moves the store's clock by a
// millisecond after each call that creates jobs: the queue sorts jobs by
// their age in milliseconds, and a replay is faster.
type recorder struct {
	*tap

	turn   chan struct{} // holds the connection's one token
	server *respConn
	log    []byte
	sent   int
}

func startRecorder(ctx context.Context, upstream string) (*recorder, error) {
	t, err := newTap(ctx, upstream)
	if err != nil {
		return nil, err
	}
	server, err := dialRESP(ctx, upstream)
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	r := &recorder{tap: t, turn: make(chan struct{}, 1), server: server}
	r.turn <- struct{}{}
	t.serve = func(client net.Conn) error { return r.relay(ctx, client) }
	t.clients.Go(t.accept)

	return r, nil
}

func (r *recorder) relay(ctx context.Context, client net.Conn) error {
	in := bufio.NewReaderSize(client, respBuffer)
	var raw, reply []byte
	for {
		var err error
		if raw, err = readValue(in, raw[:0]); err != nil {
			return err
		}
		name := r.count(raw)
		switch name {
		case "SUBSCRIBE":
			return r.pass(ctx, client, in, raw)
		case "MULTI":
			return errors.New("tap: a transaction can't be recorded")
		}
		if reply, err = r.exchange(name, raw, reply[:0]); err != nil {
			return err
		}
		if _, err := client.Write(reply); err != nil {
			return err
		}
	}
}

// exchange sends a command in its turn, and returns the answer.
func (r *recorder) exchange(name string, raw, reply []byte) ([]byte, error) {
	<-r.turn
	defer func() { r.turn <- struct{}{} }()
	reply, err := r.send(raw, reply)
	if err == nil && name == "create_job" {
		_, err = r.send(encodeCommand("INCRBY", "{tcoder}:clock", "1"), nil)
	}

	return reply, err
}

func (r *recorder) send(raw, reply []byte) ([]byte, error) {
	r.log = append(r.log, raw...)
	r.sent++
	if _, err := r.server.Write(raw); err != nil {
		return nil, err
	}

	return readValue(r.server.in, reply)
}

// cut returns what was recorded so far and begins anew.
func (r *recorder) cut() ([]byte, int) {
	<-r.turn
	defer func() { r.turn <- struct{}{} }()
	log, sent := r.log, r.sent
	r.log, r.sent = nil, 0

	return log, sent
}

// record lets the store do its work in full batches, and keeps what it sends.
func record(ctx context.Context, s setting) (_ recording, err error) {
	redis, err := startRedis(ctx, s, never)
	if err != nil {
		return recording{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	r, err := startRecorder(ctx, redis.address)
	if err != nil {
		return recording{}, err
	}
	defer func() { r.server.close(); err = errors.Join(err, r.close()) }()
	store, closeStore, err := openStore(ctx, r.url())
	if err != nil {
		return recording{}, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	crowd, err := attachCallers(ctx, store, ceilingCallers)
	if err != nil {
		return recording{}, err
	}
	only := func(n int64) func() bool {
		var begun atomic.Int64

		return func() bool { return begun.Add(1) <= n }
	}
	if _, err := runCycles(ctx, store, crowd, only(ceilingCallers)); err != nil {
		return recording{}, err
	}
	var rec recording
	rec.prepare, rec.prepared = r.cut()
	if rec.ids, err = runCycles(ctx, store, crowd, only(ceilingJobs)); err != nil {
		return recording{}, err
	}
	rec.measured, rec.commands = r.cut()

	return rec, nil
}

// ceilingCycle sends a recording through one connection, without waiting for
// answers in between, to a Redis of its own. The rate is that of a Redis that
// has a core to itself: how long the replay took tells of the client, too, and
// of whoever else wanted the core in those seconds.
func ceilingCycle(ctx context.Context, s setting, rec recording) (_ throughput, err error) {
	redis, err := startRedis(ctx, s, everySecond)
	if err != nil {
		return throughput{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	conn, err := dialRESP(ctx, redis.address)
	if err != nil {
		return throughput{}, err
	}
	defer conn.close()
	if _, err := conn.pump(rec.prepare, rec.prepared); err != nil {
		return throughput{}, err
	}
	g, err := newGauge(redis)
	if err != nil {
		return throughput{}, err
	}
	refused, err := conn.pump(rec.measured, rec.commands)
	if err != nil {
		return throughput{}, err
	}
	if refused > 0 {
		return throughput{}, fmt.Errorf("invalid: Redis refused %d commands of the replay", refused)
	}
	got, err := g.read(len(rec.ids))
	if err != nil {
		return throughput{}, err
	}
	got.perSecond = 1e6 / got.redisUS
	store, closeStore, err := openStore(ctx, redis.url())
	if err != nil {
		return throughput{}, err
	}

	return got, errors.Join(checkCompleted(ctx, store, rec.ids), closeStore())
}

// pump writes commands while it reads over their answers, and returns how many were errors.
func (c *respConn) pump(commands []byte, n int) (refused int, err error) {
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(commands)
		written <- err
	}()
	for range n {
		failed, err := skipValue(c.in)
		if err != nil {
			c.close()

			return refused, errors.Join(err, <-written)
		}
		if failed {
			refused++
		}
	}

	return refused, <-written
}
