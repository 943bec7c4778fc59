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
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		keys, next, err := client.Scan(ctx, cursor, tag+":*", 1000).Result()
		if err == nil {
			err = readElements(ctx, client, keys, found)
		}
		if err != nil {
			return nil, err
		}
		cursor = next
	}
	return found, nil
}

// readElements reads what keys hold, all in two round trips.
func readElements(ctx context.Context, client *redis.Client, keys []string, into map[string][]string) error {
	kinds := make([]*redis.StatusCmd, len(keys))
	if _, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			kinds[i] = p.Type(ctx, key)
		}
		return nil
	}); err != nil {
		return err
	}
	read := map[string]*redis.StringSliceCmd{}
	if _, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			switch kind := kinds[i].Val(); kind {
			case "zset":
				read[key] = p.ZRange(ctx, key, 0, -1)
			case "hash":
				read[key] = p.HKeys(ctx, key)
			case "list":
				read[key] = p.LRange(ctx, key, 0, -1)
			case "string":
				into[key] = nil
			case "none": // it ended meanwhile
			default:
				return fmt.Errorf("%s is a %s", key, kind)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for key, elements := range read {
		into[key] = elements.Val()
	}
	return nil
}
