package redistest

import (
	"context"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Elements returns what every key below a hash tag, braces included, holds:
// the members of a sorted set or list, the fields of a hash, nothing of a string. It
// shows what is left over.
func Elements(t testing.TB, url, tag string) map[string][]string {
	t.Helper()
	opts, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(opts)
	defer client.Close() //nolint:errcheck // nothing is lost
	found, err := elements(t.Context(), client, tag)
	require.NoError(t, err)
	return found
}

func elements(ctx context.Context, client *redis.Client, tag string) (map[string][]string, error) {
	found := map[string][]string{}
	keys := client.Scan(ctx, 0, tag+":*", 1000).Iterator()
	for keys.Next(ctx) {
		key := keys.Val()
		kind, err := client.Type(ctx, key).Result()
		if err != nil {
			return nil, err
		}
		switch kind {
		case "zset":
			found[key], err = client.ZRange(ctx, key, 0, -1).Result()
		case "hash":
			found[key], err = client.HKeys(ctx, key).Result()
		case "list":
			found[key], err = client.LRange(ctx, key, 0, -1).Result()
		case "string":
			found[key] = nil
		case "none": // it ended meanwhile
		default:
			err = fmt.Errorf("%s is a %s", key, kind)
		}
		if err != nil {
			return nil, err
		}
	}
	return found, keys.Err()
}
