package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// eventsOf reads events in the background until the stream ends. After its return no event is missed.
func eventsOf(
	ctx context.Context, t testing.TB, c *Client, w *world, f EventFilter, each func(Event) error,
) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- c.Events(ctx, f, each) }()
	receive(t, w.fake.began)
	return ended
}

// TestEvents reads with filters, and checks how a stream ends.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := start(t, "secret")
	c := w.client(t, "secret")
	published := []Event{
		{Kind: "mode_changed", Pool: "redis", Backend: "b1", From: "ready", To: "drain"},
		{Kind: "mode_changed", Pool: "other", Lost: 3},
		{Kind: "reloaded", Text: "two\nlines: \u2028 and data: x"},
		{Kind: "verdict_changed", Pool: "redis", Lost: 4},
	}
	for _, f := range []struct {
		filter   EventFilter
		expected []int
		lost     uint64
	}{
		{EventFilter{}, []int{0, 1, 2, 3}, 7},
		{EventFilter{Pool: "redis"}, []int{0, 3}, 7},
		{EventFilter{Kinds: []string{"reloaded", "verdict_changed"}}, []int{2, 3}, 7},
		{EventFilter{Pool: "redis", Kinds: []string{"mode_changed"}}, []int{0}, 0},
	} {
		var got []Event
		errEnough := errors.New("enough")
		ended := eventsOf(t.Context(), t, c, w, f.filter, func(e Event) error {
			if got = append(got, e); len(got) == len(f.expected) {
				return errEnough
			}
			return nil
		})
		for _, e := range published {
			w.fake.publish(e)
		}
		if err := receive(t, ended); !errors.Is(err, errEnough) {
			t.Fatalf("%+v: %v", f.filter, err)
		}
		receive(t, w.fake.stopped) // the server has noticed that the client has left
		var lost uint64
		for i, e := range got {
			lost += e.Lost
			if expected := published[f.expected[i]]; e.Kind != expected.Kind || e.Text != expected.Text ||
				e.Pool != expected.Pool {
				t.Errorf("%+v: event %d is %+v, expected %+v", f.filter, i, e, expected)
			}
		}
		if lost != f.lost {
			t.Errorf("%+v: %d events are lost, expected %d", f.filter, lost, f.lost)
		}
	}
}

// TestEventsEnd ends a stream from either side.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	c := w.client(t, "")
	ignore := func(Event) error { return nil }

	ctx, cancel := context.WithCancel(t.Context())
	ended := eventsOf(ctx, t, c, w, EventFilter{}, ignore)
	cancel()
	if err := receive(t, ended); !errors.Is(err, context.Canceled) {
		t.Errorf("when its context ends: %v", err)
	}
	receive(t, w.fake.stopped)

	ended = eventsOf(t.Context(), t, c, w, EventFilter{}, ignore)
	w.fake.endEvents()
	if err := receive(t, ended); !errors.Is(err, ErrEnding) {
		t.Errorf("when the daemon's events end: %v", err)
	}

	ended = eventsOf(t.Context(), t, c, w, EventFilter{}, ignore)
	check(t, w.server.Shutdown(t.Context()))
	if err := receive(t, ended); !errors.Is(err, ErrEnding) {
		t.Errorf("when the server shuts down: %v", err)
	}
	if err := c.Events(t.Context(), EventFilter{}, ignore); !errors.Is(err, ErrUnreachable) {
		t.Errorf("when the server is gone: %v", err)
	}
}

// TestEventsCut: the daemon vanishes in the middle of an event.
func TestEventsCut(t *testing.T) {
	t.Parallel()
	l := listenLoopback(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 1000))
		_, _ = io.WriteString(c,
			"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ndata: {\"kind\":\"drained\"}\n\n: alive\n\ndata: {\"kind\":\"reloaded\"}\n")
	})
	defer serving.Wait()
	defer l.Close()
	var got []string
	err := newClient(t, l.Addr().String(), "").Events(t.Context(), EventFilter{}, func(e Event) error {
		got = append(got, e.Kind)
		return nil
	})
	if !errors.Is(err, ErrUnreachable) || !slices.Equal(got, []string{"drained"}) {
		t.Errorf("the events are %q, and then %v", got, err)
	}
}

// A narrowListener has connections with small buffers.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c, c.(*net.UnixConn).SetWriteBuffer(4 << 10)
}

// TestEventsSilence: the daemon sends nothing any more, and does not close the connection either.
func TestEventsSilence(t *testing.T) {
	t.Parallel()
	w := start(t, "", func(l *limits) { l.heartbeat = time.Hour })
	c := w.client(t, "")
	c.silence = 100 * time.Millisecond
	err := c.Events(t.Context(), EventFilter{}, func(Event) error { return nil })
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, errSilent) {
		t.Errorf("the stream ends with %v", err)
	}
}

// TestEventsWire reads a stream as any client for server-sent events would.
func TestEventsWire(t *testing.T) {
	t.Parallel()
	w := start(t, "", func(l *limits) { l.heartbeat = 50 * time.Millisecond })
	conn := w.connect(t)
	_, err := io.WriteString(conn, "GET /v1/events?pool=redis HTTP/1.0\r\n\r\n")
	check(t, err)
	receive(t, w.fake.began)
	w.fake.publish(Event{At: time.Unix(0, 0).UTC(), Kind: "reloaded"})
	w.fake.publish(Event{At: time.Unix(0, 0).UTC(), Kind: "drained", Pool: "redis", Backend: "b1"})
	lines := bufio.NewReader(conn)
	var got strings.Builder
	for !strings.Contains(got.String(), "drained") || !strings.HasSuffix(got.String(), ": alive\n\n") {
		line, err := lines.ReadString('\n')
		check(t, err)
		got.WriteString(line)
	}
	head, body, _ := strings.Cut(got.String(), "\r\n\r\n")
	if !strings.Contains(head, "Content-Type: text/event-stream\r\n") ||
		!strings.Contains(head, "Cache-Control: no-store\r\n") {
		t.Errorf("the header is %s", head)
	}
	body = strings.ReplaceAll(body, ": alive\n\n", "")
	expected := ": events\n\nid: 1\nevent: drained\ndata: {\"at\":\"1970-01-01T00:00:00Z\",\"kind\":\"drained\",\"pool\":\"redis\",\"backend\":\"b1\"}\n\n"
	if body != expected {
		t.Errorf("the stream is %q, expected %q", body, expected)
	}
}

// TestManyReaders has 100 readers, one of which is stuck: the others get all events, and the stuck one is cut off.
func TestManyReaders(t *testing.T) {
	t.Parallel()
	const readers, events = 99, 50
	w := start(t, "", func(l *limits) { l.write = 5 * time.Second })
	narrow := filepath.Join(t.TempDir(), "s")
	l, err := ListenUnix(t.Context(), narrow, 0o600)
	check(t, err)
	w.serve(t, narrowListener{l})
	stuck, err := net.Dial("unix", narrow)
	check(t, err)
	defer stuck.Close()
	_, err = io.WriteString(stuck, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	check(t, err)
	receive(t, w.fake.began)

	var reading sync.WaitGroup
	errEnough := errors.New("enough")
	for range readers {
		c := newClient(t, "unix:"+narrow, "")
		reading.Go(func() {
			n := 0
			err := c.Events(t.Context(), EventFilter{}, func(e Event) error {
				if e.Lost > 0 || e.Reason != fmt.Sprint(n) {
					return fmt.Errorf("event %d is %q after %d lost", n, e.Reason, e.Lost)
				}
				if n++; n == events {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Errorf("a reader that is not stuck: %v", err)
			}
		})
	}
	for range readers {
		receive(t, w.fake.began)
	}
	long := strings.Repeat("x", 1<<10) // in all, more than the buffers of such a connection hold
	for n := range events {
		w.fake.publish(Event{Kind: "reloaded", Reason: fmt.Sprint(n), Text: long})
	}
	reading.Wait()
	for range readers + 1 {
		receive(t, w.fake.stopped)
	}
}

// TestStreamLimit opens more streams than allowed.
func TestStreamLimit(t *testing.T) {
	t.Parallel()
	w := start(t, "", func(l *limits) { l.streams = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := w.client(t, "")
	ended := eventsOf(ctx, t, c, w, EventFilter{}, func(Event) error { return nil })
	if p := w.do(t, request{method: "GET", target: "/v1/events"}).problem(t); p.Type != problemTooManyStreams {
		t.Errorf("the second: %s", p.Type)
	}
	var problem *Problem
	if err := c.Events(t.Context(), EventFilter{}, nil); !errors.As(err, &problem) ||
		problem.Type != problemTooManyStreams {
		t.Errorf("the second, by a Client: %v", err)
	}
	cancel()
	receive(t, ended)
	receive(t, w.fake.stopped)
	// the place becomes free a moment later
	head := request{method: "HEAD", target: "/v1/events"}
	for deadline := time.Now().Add(30 * time.Second); w.do(t, head).status != 200; {
		if time.Now().After(deadline) {
			t.Fatal("the place is not free")
		}
	}
}
