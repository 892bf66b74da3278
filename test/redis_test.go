package test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
	"github.com/redis/go-redis/v9"
)

func TestRedisBenchmark(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	for _, tc := range []struct {
		name     string
		args     []string
		sessions int // at least
	}{
		{"pipeline 1", []string{"-n", "50000", "-P", "1"}, 50},
		{"pipeline 16", []string{"-n", "200000", "-P", "16"}, 50},
		{"connection per request", []string{"-n", "3000", "-k", "0"}, 2 * 3000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := world{Backends: []string{server.Address}}.start(t)
			host, port, err := net.SplitHostPort(b.Address(t, "main"))
			check(t, err)
			stdout, stderr, code := harness.Run(t, harness.Command{
				Path: harness.Tool(t, "redis-benchmark"),
				Args: append([]string{"-h", host, "-p", port, "-c", "50", "-t", "set,get", "--csv"}, tc.args...),
			})
			if code != 0 || strings.Contains(strings.ToLower(stdout+stderr), "error") {
				t.Fatalf("redis-benchmark: exit code %d\n%s\n%s", code, stdout, stderr)
			}
			for _, command := range []string{"SET", "GET"} {
				if !strings.Contains(stdout, fmt.Sprintf("%q", command)) {
					t.Errorf("no result for %s:\n%s", command, stdout)
				}
			}
			// When it has its answers, redis-benchmark closes clients that may have unread ones, and so may reset them,
			// and others that have not asked anything yet.
			oneOf(t, b.WaitSessions(t, tc.sessions), "client_closed", "client_reset", "probe")
		})
	}
}

// TestRedisClient does what real clients do besides: large values in both directions, a deep pipeline, messages pushed
// by the server, and many clients at once.
func TestRedisClient(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	b := world{Backends: []string{server.Address}}.start(t)
	client := redis.NewClient(&redis.Options{Addr: b.Address(t, "main"), MaxRetries: -1, PoolSize: 16})
	ctx := t.Context()

	large := bytes.Repeat([]byte("limeload"), 1<<20)
	check(t, client.Set(ctx, "large", large, 0).Err())
	got, err := client.Get(ctx, "large").Bytes()
	check(t, err)
	if !bytes.Equal(got, large) {
		t.Errorf("value of %d bytes came back as another of %d bytes", len(large), len(got))
	}

	pipeline := client.Pipeline()
	for range 10_000 {
		pipeline.Incr(ctx, "n")
	}
	_, err = pipeline.Exec(ctx)
	check(t, err)
	if n, err := client.Get(ctx, "n").Int(); err != nil || n != 10_000 {
		t.Errorf("counter is %d after 10000 increments, %v", n, err)
	}

	subscription := client.Subscribe(ctx, "news")
	_, err = subscription.Receive(ctx)
	check(t, err)
	check(t, client.Publish(ctx, "news", "hello").Err())
	if m := harness.Receive(t, "message", subscription.Channel()); m.Payload != "hello" {
		t.Errorf("message is %q", m.Payload)
	}
	check(t, subscription.Close())

	var users sync.WaitGroup
	for i := range 16 {
		users.Go(func() {
			for k := range 200 {
				key := fmt.Sprintf("key-%d-%d", i, k)
				if err := client.Set(ctx, key, key, 0).Err(); err != nil {
					t.Error(err)
				}
				if got, err := client.Get(ctx, key).Result(); err != nil || got != key {
					t.Errorf("%s is %q, %v", key, got, err)
				}
			}
		})
	}
	users.Wait()
	check(t, client.Close())
	b.CheckLeaks(t)
	oneOf(t, b.WaitSessions(t, 1), "client_closed")
}
