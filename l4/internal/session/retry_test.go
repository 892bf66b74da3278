package session_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// firstPool returns a pool that sends sessions to the first backend that is eligible.
func firstPool(t *testing.T, o pool.Options, addresses ...string) *pool.Pool {
	t.Helper()
	o.Name, o.Algorithm, o.Initial, o.ConnectTimeout = "pool", "first", pool.Healthy, time.Second
	p, err := pool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func greets(c *net.TCPConn) {
	_, _ = c.Write([]byte("hello\n"))
	_, _ = io.Copy(io.Discard, c)
}

func closesAtOnce(*net.TCPConn) {}

func resetsAtOnce(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// TestRetryOfUntouched has a backend end every connection at once, beside one that works. No client notices.
func TestRetryOfUntouched(t *testing.T) {
	for _, tt := range []struct {
		name   string
		handle func(*net.TCPConn)
		wait   time.Duration // until the backend does it
	}{
		{"closes", closesAtOnce, 0}, {"resets", resetsAtOnce, 0},
		{"closes a moment later", closesAtOnce, 50 * time.Millisecond},
		{"resets a moment later", resetsAtOnce, 50 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := backend(t, func(c *net.TCPConn) {
				time.Sleep(tt.wait)
				tt.handle(c)
			})
			p := firstPool(t, pool.Options{Retries: 1}, bad, backend(t, greets))
			lines, log := newCapture()
			s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
			const clients = 50
			for range clients {
				c := dial(t, address(s))
				if text, err := bufio.NewReader(c).ReadString('\n'); err != nil || text != "hello\n" {
					t.Fatalf("a client reads %q, error %v", text, err)
				}
				c.Close()
				if line := lines.Next(t); line.Reason != tally.ClientClosed.String() || line.Backend == bad {
					t.Fatalf("a session of %s ended with %s", line.Backend, line.Reason)
				}
			}
			b := p.Backends()[0]
			if got := b.Outcomes[pool.CutEarly] + b.Outcomes[pool.ConnectRefused]; got != clients {
				t.Errorf("%d failures of the bad backend, want %d", got, clients)
			}
			eventually(t, "all leases are back", func() bool {
				return p.Backends()[0].Leases == 0 && p.Backends()[1].Leases == 0
			})
		})
	}
}

// TestNoRetry holds when a session stays with a backend that ends it.
func TestNoRetry(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handle  func(*net.TCPConn)
		send    string // by the client, and the backend waits for it
		retries int
		others  int
		want    l4.Reason
		text    string // what the client gets
	}{
		{"it has sent a byte", func(c *net.TCPConn) { c.Write([]byte("x")) }, "", 2, 1, tally.BackendClosed, "x"},
		{"it has read a byte, and closes", closesAtOnce, "x", 2, 1, tally.BackendClosed, ""},
		{"it has read a byte, and resets", resetsAtOnce, "x", 2, 1, tally.BackendReset, ""},
		{"no retries", closesAtOnce, "", 0, 1, tally.BackendClosed, ""},
		{"no other backend", closesAtOnce, "", 2, 0, tally.BackendClosed, ""},
		{"no other backend, and it resets", func(c *net.TCPConn) {
			time.Sleep(50 * time.Millisecond) // else it may be a failed connect
			resetsAtOnce(c)
		}, "", 2, 0, tally.BackendReset, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := backend(t, func(c *net.TCPConn) {
				_, _ = io.ReadFull(c, make([]byte, len(tt.send)))
				tt.handle(c)
			})
			p := firstPool(t, pool.Options{Retries: tt.retries}, bad)
			for range tt.others {
				a := backend(t, func(c *net.TCPConn) { t.Error("another backend got the session") })
				if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
					t.Fatal(err)
				}
			}
			lines, log := newCapture()
			s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
			c := dial(t, address(s))
			if _, err := c.Write([]byte(tt.send)); err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(c)
			c.Close()
			line := lines.Next(t)
			if line.Reason != tt.want.String() || line.Backend != bad || string(got) != tt.text {
				t.Errorf("it ended with %s, the client got %q", line.Reason, got)
			}
		})
	}
}

// TestRetryBound has every backend close at once. The session tries as many as retries allow, none of them twice, and
// the client then sees what the last one has done.
func TestRetryBound(t *testing.T) {
	var all []string
	for range 4 {
		all = append(all, backend(t, closesAtOnce))
	}
	p := firstPool(t, pool.Options{Retries: 2}, all...)
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
	c := dial(t, address(s))
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("the client got %q, %v", got, err)
	}
	c.Close()
	if line := lines.Next(t); line.Reason != tally.BackendClosed.String() || line.Backend != all[2] {
		t.Errorf("it ended with %s at %s", line.Reason, line.Backend)
	}
	for i, b := range p.Backends() {
		want := uint64(1)
		if i == 3 {
			want = 0
		}
		if b.Outcomes[pool.CutEarly] != want {
			t.Errorf("backend %d was cut early %d times, want %d", i, b.Outcomes[pool.CutEarly], want)
		}
	}
}

// TestRetryWithProxyHeader has the first backend read the PROXY header and close. The next one gets the header, too,
// once, and then what the client sends.
func TestRetryWithProxyHeader(t *testing.T) {
	bad := backend(t, func(c *net.TCPConn) { _, _ = bufio.NewReader(c).ReadString('\n') })
	good := backend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		header, _ := r.ReadString('\n')
		_, _ = io.WriteString(c, header)
		_, _ = io.Copy(c, r)
	})
	p := firstPool(t, pool.Options{Retries: 1, SendProxy: 1}, bad, good)
	s := start(t, l4.Options{Loops: 1}, spec(p))
	c := dial(t, address(s))
	r := bufio.NewReader(c)
	header, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(header, "PROXY TCP4 127.0.0.1 ") {
		t.Fatalf("the header is %q, error %v", header, err)
	}
	if _, err := io.WriteString(c, "more\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := r.ReadString('\n'); err != nil || text != "more\n" {
		t.Errorf("behind it comes %q, error %v", text, err)
	}
	if b := p.Backends()[0]; b.Outcomes[pool.CutEarly] != 1 {
		t.Errorf("the first backend was cut early %d times", b.Outcomes[pool.CutEarly])
	}
}

// TestRetryWaits has the other backend be full: the session waits for it in the queue.
func TestRetryWaits(t *testing.T) {
	bad, good := backend(t, closesAtOnce), backend(t, greets)
	p := firstPool(t, pool.Options{Retries: 1, QueueMax: 1, QueueTimeout: time.Minute}, good)
	if err := p.SetMaxSessions(good, 1); err != nil {
		t.Fatal(err)
	}
	s := start(t, l4.Options{Loops: 1}, spec(p))
	holder := dial(t, address(s))
	if _, err := bufio.NewReader(holder).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(pool.Spec{ID: bad, Addr: pool.At(netip.MustParseAddrPort(bad)), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, address(s))
	eventually(t, "the client waits", func() bool { return p.Waiting() == 1 })
	holder.Close()
	if text, err := bufio.NewReader(c).ReadString('\n'); err != nil || text != "hello\n" {
		t.Errorf("it reads %q, error %v", text, err)
	}
}
