package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limeload/limeload-l4/test/harness"
)

// A redisWrite is one session of a writer, with one SET.
type redisWrite struct {
	key        string
	began, end time.Time
	err        error // nil: it was acknowledged at end
}

// A redisWriters is a load of clients that connect, set a key, and leave.
type redisWriters struct {
	address string
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the field below
	writes []redisWrite
}

// startRedisWriters starts n writers, whose keys begin with prefix.
func startRedisWriters(t testing.TB, address, prefix string, n int) *redisWriters {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &redisWriters{address: address, cancel: cancel}
	t.Cleanup(func() { w.stop() })
	for i := range n {
		w.running.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				write := redisWrite{key: fmt.Sprintf("%s-%d-%d", prefix, i, k), began: time.Now()}
				write.err = setKey(address, write.key)
				write.end = time.Now()
				w.mu.Lock()
				w.writes = append(w.writes, write)
				w.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(connectPause):
				}
			}
		})
	}
	return w
}

// setKey sets a key in a session of its own.
func setKey(address, key string) error {
	c, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "SET %s 1\r\n", key); err != nil {
		return err
	}
	answer, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return errors.New("the session ended without an answer")
	}
	if err != nil {
		return err
	}
	if answer != "+OK\r\n" {
		return errors.New(strings.TrimSpace(answer))
	}
	return nil
}

// stop ends the writers and returns what they did, in the order of its end.
func (w *redisWriters) stop() []redisWrite {
	w.cancel()
	w.running.Wait()
	return w.soFar()
}

func (w *redisWriters) soFar() []redisWrite {
	w.mu.Lock()
	defer w.mu.Unlock()
	writes := slices.Clone(w.writes)
	slices.SortFunc(writes, func(a, b redisWrite) int { return a.end.Compare(b.end) })
	return writes
}

// awaitWrite waits until a write that began after since is acknowledged, and returns it.
func (w *redisWriters) awaitWrite(t testing.TB, since time.Time) redisWrite {
	t.Helper()
	var found redisWrite
	harness.Eventually(t, "a write succeeds", func() error {
		for _, write := range w.soFar() {
			if write.err == nil && write.end.After(since) {
				found = write
				return nil
			}
		}
		return errors.New("none did")
	})
	return found
}

// A sentinelCluster is a master with two replicas, and three Sentinels that watch them.
type sentinelCluster struct {
	servers   map[string]*harness.Redis // by address
	sentinels []*harness.Sentinel
	switches  chan sentinelSwitch // never closed
}

// A sentinelSwitch is a message +switch-master of one Sentinel.
type sentinelSwitch struct {
	at     time.Time
	master string
}

func startSentinelCluster(t *testing.T) *sentinelCluster {
	t.Helper()
	master, replicas := harness.StartReplicated(t, 2)
	c := &sentinelCluster{
		servers: map[string]*harness.Redis{master.Address: master}, switches: make(chan sentinelSwitch, 1000),
		sentinels: harness.StartSentinels(t, master, len(replicas)),
	}
	for _, r := range replicas {
		c.servers[r.Address] = r
	}
	for _, s := range c.sentinels {
		client := redis.NewSentinelClient(&redis.Options{Addr: s.Address})
		messages := client.Subscribe(t.Context(), "+switch-master")
		_, err := messages.Receive(t.Context())
		check(t, err)
		var following sync.WaitGroup
		following.Go(func() {
			for m := range messages.Channel() {
				words := strings.Fields(m.Payload)
				c.switches <- sentinelSwitch{time.Now(), net.JoinHostPort(words[3], words[4])}
			}
		})
		t.Cleanup(func() {
			check(t, messages.Close())
			check(t, client.Close())
			following.Wait()
		})
	}
	return c
}

// discover returns the lines of a pool's discovery table.
func (c *sentinelCluster) discover() []string {
	var endpoints []string
	for _, s := range c.sentinels {
		endpoints = append(endpoints, fmt.Sprintf("%q", s.Address))
	}
	return []string{
		`type = "sentinel"`, "endpoints = [" + strings.Join(endpoints, ", ") + "]",
		fmt.Sprintf("master = %q", harness.SentinelMaster),
	}
}

// master returns the address of the master, as the first Sentinel names it.
func (c *sentinelCluster) master(t testing.TB) string {
	t.Helper()
	words := strings.Fields(c.sentinels[0].Do(t, "sentinel", "get-master-addr-by-name", harness.SentinelMaster))
	return net.JoinHostPort(words[0], words[1])
}

// awaitSwitch waits until two of the three Sentinels have switched to a new master, and returns the first message and
// the second one.
func (c *sentinelCluster) awaitSwitch(t testing.TB, from string) (first, second sentinelSwitch) {
	t.Helper()
	for {
		s := harness.Receive(t, "+switch-master", c.switches)
		switch {
		case s.master == from:
		case first.master != s.master:
			first = s
		default:
			return first, s
		}
	}
}

// awaitSettled waits until all Sentinels have the master, and two replicas that follow it.
func (c *sentinelCluster) awaitSettled(t testing.TB, master string) {
	t.Helper()
	host, port := splitAddress(t, master)
	harness.Eventually(t, "all servers follow the master", func() error {
		for address, s := range c.servers {
			role, err := s.Try(t, "role")
			if err != nil {
				return err
			}
			if address != master && !strings.HasPrefix(role, "slave\n"+host+"\n"+port+"\nconnected") {
				return errors.New(address + ": " + role)
			}
		}
		return nil
	})
	for _, s := range c.sentinels {
		s.WaitFor(t, 2)
	}
	for len(c.switches) > 0 {
		<-c.switches
	}
}

func splitAddress(t testing.TB, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	check(t, err)
	return host, port
}
