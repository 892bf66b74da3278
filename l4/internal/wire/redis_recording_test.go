package wire

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestRedisTurnsRecorded holds that sessions with a real server are at rest exactly when they are.
func TestRedisTurnsRecorded(t *testing.T) {
	server := harness.StartRedisOn(t, harness.FreePort(t), "--enable-debug-command", "yes")
	server.Do(t, "ACL", "SETUSER", "poor", "on", "nopass", "~*", "+multi", "+exec", "+watch", "+get", "+set")
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("go-redis with RESP%d", protocol), func(t *testing.T) {
			testRecording[RedisTurns](t, recordGoRedis(t, server, protocol))
		})
	}
	t.Run("redis-cli", func(t *testing.T) {
		r := record(t, server.Address)
		_, port, _ := net.SplitHostPort(r.address)
		r.add(rests)
		harness.MustRun(t, harness.Command{Path: harness.Tool(t, "redis-cli"),
			Args: []string{"-3", "-p", port, "INFO"}})
		r.add(rests)
		testRecording[RedisTurns](t, r)
	})
	for name, talk := range redisTalks {
		t.Run(name, func(t *testing.T) {
			r := record(t, server.Address)
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, one := range talk {
				if _, err := c.Write([]byte(one.send)); err != nil {
					t.Fatal(err)
				}
				readTo(t, c, one.until)
				r.add(one.then)
			}
			c.Close()
			testRecording[RedisTurns](t, r)
		})
	}
}

// recordGoRedis records a session of the usual client of Go.
func recordGoRedis(t *testing.T, server *harness.Redis, protocol int) *recording {
	r := record(t, server.Address)
	c := redis.NewClient(&redis.Options{Addr: r.address, Protocol: protocol, PoolSize: 1, MaxRetries: -1})
	defer c.Close()
	ctx := t.Context()
	step := func(is turn, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		r.add(is)
	}
	step(rests, c.Ping(ctx).Err())
	step(rests, c.Set(ctx, "a", strings.Repeat("x\r\n", 20_000), 0).Err())
	step(rests, c.Get(ctx, "a").Err())
	step(rests, c.HSet(ctx, "h", "f", 1, "g", 2).Err())
	step(rests, c.HGetAll(ctx, "h").Err())
	step(rests, c.ZAdd(ctx, "z", redis.Z{Score: 1.5, Member: "m"}).Err())
	step(rests, c.ZRangeWithScores(ctx, "z", 0, -1).Err())
	step(rests, c.SAdd(ctx, "s", "a", "b").Err())
	step(rests, c.SMembers(ctx, "s").Err())
	step(rests, c.XAdd(ctx, &redis.XAddArgs{Stream: "x", Values: []string{"a", "b"}}).Err())
	step(rests, c.XRange(ctx, "x", "-", "+").Err())
	step(rests, c.Eval(ctx, "return {1, {'a', false, {}}, redis.status_reply('x')}", nil).Err())
	if err := c.Eval(ctx, "return redis.error_reply('no')", nil).Err(); err == nil {
		t.Fatal("no error")
	}
	step(rests, nil)
	step(rests, c.Command(ctx).Err())
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 500 {
			p.Set(ctx, fmt.Sprint(i), i, 0)
		}
		return nil
	})
	step(rests, err)
	_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Incr(ctx, "n")
		p.Get(ctx, "n")
		return nil
	})
	step(rests, err)
	step(rests, c.Watch(ctx, func(tx *redis.Tx) error {
		step(busy, tx.Get(ctx, "n").Err())
		_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Incr(ctx, "n")
			return nil
		})
		return err
	}, "n"))
	step(rests, c.Watch(ctx, func(tx *redis.Tx) error {
		step(busy, tx.Get(ctx, "n").Err())
		return nil
	}, "n"))
	blocked := make(chan error, 1)
	go func() { blocked <- c.BLPop(ctx, 0, "queue").Err() }()
	harness.Eventually(t, "BLPOP is sent", func() error {
		if !strings.Contains(strings.ToUpper(r.sent()), "BLPOP") {
			return errors.New("not yet")
		}
		return nil
	})
	step(busy, nil)
	server.Do(t, "LPUSH", "queue", "x")
	step(rests, harness.Receive(t, "the reply to BLPOP", blocked))
	return r
}

// redisTalks are sessions that no usual client has. Each step sends something, waits for the end of a reply, and says
// what is true then.
var redisTalks = map[string][]struct {
	send, until string
	then        turn
}{
	"inline": {
		{"\r\nPING\r\n", "+PONG\r\n", rests},
		{"*0\r\n*-1\r\nping  x\n", "$1\r\nx\r\n", rests},
		{"multi\r\nset a \"b c\"\r\n", "+QUEUED\r\n", busy},
		{"exec x\r\n", "'exec' command\r\n", busy}, // ended here, but not with all versions
		{"multi\r\nexec\r\n", "*0\r\n", rests},
		{"exec\r\n", "without MULTI\r\n", rests},
		{"client reply off\r\nclient reply on\r\n", "+OK\r\n", hidden},
	},
	"no DISCARD": {
		{"AUTH poor x\r\nWATCH a\r\n", "+OK\r\n+OK\r\n", busy},
		{"MULTI\r\nDISCARD\r\n", "'discard' command\r\n", busy},
		{"GET a\r\n", "+QUEUED\r\n", busy},
		{"EXEC\r\n", "-EXECABORT Transaction discarded because of previous errors.\r\n", rests},
		{"WATCH a\r\n", "+OK\r\n", busy},
		{"UNWATCH\r\n", "'unwatch' command\r\n", busy},
	},
	"types of RESP3": {
		{"HELLO 3\r\n", "$7\r\nmodules\r\n*0\r\n", rests},
		{"DEBUG PROTOCOL attrib\r\n", "key:123\r\n:90\r\n$39\r\n" +
			"Some real reply following the attribute\r\n", rests},
		{"DEBUG PROTOCOL map\r\n", ":2\r\n#f\r\n", rests},
		{"DEBUG PROTOCOL set\r\n", ":2\r\n", rests},
		{"DEBUG PROTOCOL bignum\r\n", "999999\r\n", rests},
		{"DEBUG PROTOCOL double\r\n", "\r\n", rests},
		{"DEBUG PROTOCOL null\r\n", "_\r\n", rests},
		{"DEBUG PROTOCOL verbatim\r\n", "\nstring\r\n", rests},
		{"DEBUG PROTOCOL push\r\n", "following the push reply\r\n", rests},
		{"RESET\r\nGET nothing\r\n", "$-1\r\n", rests},
	},
	"tracking": {
		{"HELLO 3\r\n", "*0\r\n", rests},
		{"CLIENT TRACKING ON\r\nGET tracked\r\n", "_\r\n", rests},
		{"CLIENT TRACKING ON NOLOOP\r\nSET tracked 1\r\nSET x 1\r\n", "+OK\r\n+OK\r\n", rests},
		{"CLIENT TRACKING OFF\r\nCLIENT TRACKING ON\r\nGET tracked\r\n", "$1\r\n1\r\n", rests},
		{"SET tracked 2\r\n", "tracked\r\n", rests},
	},
	"subscribed": {
		{"SUBSCRIBE a\r\n", ":1\r\n", hidden},
		{"UNSUBSCRIBE\r\n", ":0\r\n", hidden},
	},
}
