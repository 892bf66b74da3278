package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A fakeSentinel is a server that answers as a Sentinel, or as its answer function says.
type fakeSentinel struct {
	address string

	mu sync.Mutex
	// mu guards the fields below
	master   string
	replicas []fakeReplica
	epoch    int
	answer   func(words []string) (string, bool) // raw; false: the usual answer. nil: always that
	asked    []string                            // commands, in order
	conns    map[net.Conn]bool                   // true: it has subscribed
}

// A fakeReplica is what a fakeSentinel says about a replica.
type fakeReplica struct{ addr, flags, link string }

// startFakeSentinel starts one that names the master "mymaster".
func startFakeSentinel(t testing.TB, master string, replicas ...fakeReplica) *fakeSentinel {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f := &fakeSentinel{
		address: l.Addr().String(), master: master, replicas: replicas, epoch: 1, conns: make(map[net.Conn]bool),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[c] = false
			f.mu.Unlock()
			serving.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.disconnect()
		serving.Wait()
	})
	return f
}

// disconnect closes all connections.
func (f *fakeSentinel) disconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (f *fakeSentinel) serve(c net.Conn) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, c)
		c.Close()
	}()
	commands := newReplyReader(c)
	for {
		v, err := commands.read()
		if err != nil {
			return
		}
		if _, err := c.Write([]byte(f.reply(c, v.texts()))); err != nil {
			return
		}
	}
}

// reply returns the reply to a command.
func (f *fakeSentinel) reply(c net.Conn, words []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, strings.Join(words, " "))
	if f.answer != nil {
		if raw, is := f.answer(words); is {
			return raw
		}
	}
	host, port, _ := net.SplitHostPort(f.master)
	switch strings.ToLower(strings.Join(words[:min(2, len(words))], " ")) {
	case "sentinel get-master-addr-by-name":
		return list(host, port)
	case "sentinel master":
		return list("name", words[2], "ip", host, "port", port, "flags", "master", "config-epoch", fmt.Sprint(f.epoch))
	case "sentinel replicas":
		raw := fmt.Sprintf("*%d\r\n", len(f.replicas))
		for _, r := range f.replicas {
			host, port, _ := net.SplitHostPort(r.addr)
			raw += list("ip", host, "port", port, "flags", r.flags, "master-link-status", r.link)
		}
		return raw
	}
	switch words[0] {
	case "SUBSCRIBE":
		f.conns[c] = true
		var raw strings.Builder
		for i, channel := range words[1:] {
			fmt.Fprintf(&raw, "*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:%d\r\n", len(channel), channel, i+1)
		}
		return raw.String()
	case "PING":
		return list("pong", "")
	}
	return "-ERR unknown command\r\n"
}

// list returns a list of texts as a server sends it, which is also how a client sends a command.
func list(texts ...string) string { return string(appendCommand(nil, texts...)) }

// set changes what the Sentinel says.
func (f *fakeSentinel) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// commands returns how often a command was asked that begins so.
func (f *fakeSentinel) commands(prefix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, command := range f.asked {
		if strings.HasPrefix(command, prefix) {
			n++
		}
	}
	return n
}

// publish sends a message to those who have subscribed.
func (f *fakeSentinel) publish(t testing.TB, channel, message string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, subscribed := range f.conns {
		if subscribed {
			_, err := c.Write([]byte(list("message", channel, message)))
			must(t, err)
		}
	}
}

// awaitSubscribers waits until so many have subscribed.
func (f *fakeSentinel) awaitSubscribers(t testing.TB, want int) {
	t.Helper()
	harness.Eventually(t, "subscribers", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		n := 0
		for _, subscribed := range f.conns {
			if subscribed {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d have subscribed, want %d", n, want)
		}
		return nil
	})
}

// sentinelsAt returns a source that asks these endpoints for "mymaster".
func sentinelsAt(fakes ...*fakeSentinel) *Sentinel {
	o := SentinelOptions{Master: "mymaster"}
	for _, f := range fakes {
		o.Endpoints = append(o.Endpoints, f.address)
	}
	return NewSentinel(o)
}

// summary writes an answer as "primary 10.0.0.1:6379, replica 10.0.0.2:6379 w0", or its error.
func summary(found Found, err error) string {
	if err != nil {
		return err.Error()
	}
	var backends []string
	for _, b := range found.Backends {
		text := b.Role.String() + " " + b.Addr.String()
		if b.ID != b.Addr.String() {
			text += " named " + b.ID
		}
		if b.Weight != 1 {
			text += fmt.Sprintf(" w%d", b.Weight)
		}
		backends = append(backends, text)
	}
	slices.Sort(backends)
	return strings.Join(backends, ", ")
}

// watchSentinels runs Watch until the end of the test, and returns a channel that gets a value for each call of
// changed.
func watchSentinels(t testing.TB, s *Sentinel) <-chan bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan bool, 10_000) // never closed
	var running sync.WaitGroup
	running.Go(func() { _ = s.Watch(ctx, func() { changes <- true }) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return changes
}

// errWaiting is the error of what has not happened yet.
var errWaiting = errors.New("not yet")
