package redisstore

import (
	"io"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// reply is an error that Redis answered.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

// TestAnswered guarantees that a server which answers that it can't serve isn't
// taken for one that serves.
func TestAnswered(t *testing.T) {
	t.Parallel()

	var a answered

	for _, err := range []error{nil, redis.Nil, reply("ERR no such key")} {
		a.at.Store(0)
		a.note(err)
		require.NotZero(t, a.at.Load(), "%v", err)
	}

	for _, err := range []error{io.EOF, reply("LOADING Redis is loading the dataset in memory"), reply("NOAUTH Authentication required.")} {
		a.at.Store(1)
		a.note(err)
		require.Zero(t, a.at.Load(), "%v", err)
	}
}
