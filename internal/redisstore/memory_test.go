package redisstore_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// usedMemory is what Redis says it has allocated for its data set and itself.
func usedMemory(t *testing.T, url string) int64 {
	t.Helper()

	opts, err := redis.ParseURL(url)
	require.NoError(t, err)

	client := redis.NewClient(opts)
	defer func() { require.NoError(t, client.Close()) }()

	info, err := client.Info(t.Context(), "memory").Result()
	require.NoError(t, err)

	match := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(info)
	require.Len(t, match, 2)

	bytes, err := strconv.ParseInt(match[1], 10, 64)
	require.NoError(t, err)

	return bytes
}
