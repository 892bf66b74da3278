package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BalancerOptions says how to start a balancer; only Config is needed.
type BalancerOptions struct {
	Config      string // the configuration's text
	On          *Host  // nil: the test's own network namespace
	Descriptors int    // limit of open files; 0: that of the test
	Measured    bool   // CPU time or memory will be measured: a plain build even under -race
	Killed      bool   // the test will kill it: its end is not checked
}

// A Balancer is a running limeload-l4. At the end of the test it must have no sockets open beyond those of its start,
// and must end with exit code 0 on SIGTERM.
type Balancer struct {
	*Process

	// set once, then read-only
	file      string            // of its configuration
	admin     string            // the path of its admin socket
	addresses map[string]string // of each listener, as logged
	start     Descriptors       // open when it was ready
	moved     bool              // its listening sockets have changed since its start, but not their number

	log       feed[Line]
	malformed feed[string] // lines on standard error that are not JSON
}

// StartBalancer starts a balancer with this configuration and waits until it is ready.
func StartBalancer(t testing.TB, config string) *Balancer {
	t.Helper()
	return StartBalancerWith(t, BalancerOptions{Config: config})
}

// StartBalancerWith is StartBalancer with options.
func StartBalancerWith(t testing.TB, o BalancerOptions) *Balancer {
	t.Helper()
	b := &Balancer{
		file: filepath.Join(t.TempDir(), "lb.toml"), admin: filepath.Join(shortDir(t), "admin.sock"),
		addresses: map[string]string{},
	}
	b.Configure(t, o.Config)
	b.Process = Start(t, Command{
		Path:        Binary(t, o.Measured),
		Args:        []string{"--config", b.file},
		Descriptors: o.Descriptors,
		On:          o.On,
		// otherwise the race detector waits a second at exit for reports of other threads
		Env:      []string{"GORACE=atexit_sleep_ms=50"},
		onStderr: b.readLine,
		onEnd:    b.log.end,
	})
	_, _, ready := b.log.find(0, Patience, func(l Line) bool {
		if l.Message == MessageListening {
			b.addresses[l.Listener] = l.Address
		}
		return l.Message == MessageReady
	})
	if !ready {
		t.Fatalf("the balancer did not become ready with the configuration\n%s", o.Config)
	}
	b.start = b.Descriptors(t)
	if !o.Killed {
		t.Cleanup(func() { b.end(t) })
	}
	return b
}

func (b *Balancer) readLine(text string) {
	line, err := ParseLine(text)
	if err != nil || line.Event == "" {
		b.malformed.add(text)
		return
	}
	b.log.add(line)
}

// end checks what every test expects of a balancer at its end.
func (b *Balancer) end(t testing.TB) {
	select {
	case <-b.Done(): // the test has ended it and checked its exit code
	default:
		if !t.Failed() {
			b.CheckLeaks(t)
		}
		b.Signal(t, syscall.SIGINT)
		if code := b.Wait(t); code != 0 {
			t.Errorf("the balancer ended with exit code %d", code)
		}
	}
	if lines := b.malformed.all(); len(lines) > 0 {
		t.Errorf("%d lines on standard error are not JSON with an event:\n%s", len(lines), tail(lines))
	}
}

// CheckLeaks waits until all sockets that were not open at the balancer's start are closed.
func (b *Balancer) CheckLeaks(t testing.TB) {
	t.Helper()
	Eventually(t, "the balancer's descriptors are those of its start", func() error {
		now := b.Descriptors(t)
		if b.moved && len(now.Sockets) <= len(b.start.Sockets) {
			now.Sockets = nil
		}
		return now.leaks(b.start)
	})
}

// ListenersMoved says that the balancer now has other listeners than at its start, but as many: the check at the end
// then only counts its sockets.
func (b *Balancer) ListenersMoved() { b.moved = true }

// StartDescriptors returns the descriptors that the balancer had open when it was ready.
func (b *Balancer) StartDescriptors() Descriptors { return b.start }

// Address returns the address that the listener logged.
func (b *Balancer) Address(t testing.TB, listener string) string {
	t.Helper()
	address, known := b.addresses[listener]
	if !known {
		t.Fatalf("listener %q did not say that it listens", listener)
	}
	return address
}

// Dial connects to the listener. The connection is closed at the end of the test.
func (b *Balancer) Dial(t testing.TB, listener string) *net.TCPConn {
	t.Helper()
	return Dial(t, b.Address(t, listener))
}

// DialFrom connects to address, and returns the local address even on an error. A connection may be reset before
// connect returns: then the error is ECONNRESET, although there was a session.
func DialFrom(address string) (c *net.TCPConn, from netip.AddrPort, err error) {
	var d net.Dialer
	d.Timeout = Patience
	d.ControlContext = func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		return errors.Join(raw.Control(func(fd uintptr) {
			if err = syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				return
			}
			var at syscall.Sockaddr
			if at, err = syscall.Getsockname(int(fd)); err == nil {
				in := at.(*syscall.SockaddrInet4)
				from = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
			}
		}), err)
	}
	conn, err := d.Dial("tcp4", address)
	if err != nil {
		return nil, from, err
	}
	return conn.(*net.TCPConn), from, nil
}

// Dial connects to address, which must succeed. The connection is closed at the end of the test. Reads and writes on it
// fail after Patience.
func Dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * Patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// WaitLine waits for the first line of the log that matches.
func (b *Balancer) WaitLine(t testing.TB, what string, matches func(Line) bool) Line {
	t.Helper()
	line, _, found := b.log.find(0, Patience, matches)
	if !found {
		t.Fatalf("no log line: %s", what)
	}
	return line
}

// WaitVerdict waits for the first change of the backend's verdict to this one that was logged after since.
func (b *Balancer) WaitVerdict(t testing.TB, backend, to string, since time.Time) Line {
	t.Helper()
	return b.WaitLine(t, fmt.Sprintf("backend %s is %s", backend, to), func(l Line) bool {
		return l.Message == MessageVerdict && l.Backend == backend && l.To == to && l.Seen.After(since)
	})
}

// WaitSession waits for the access line of the session of the client with this address, as its LocalAddr gives it.
func (b *Balancer) WaitSession(t testing.TB, client net.Addr) Line {
	t.Helper()
	return b.WaitLine(t, "end of the session of "+client.String(), func(l Line) bool {
		return l.IsAccess() && l.Client == client.String()
	})
}

// WaitFlow waits for the access line of the flow of the client with this address, as its LocalAddr gives it.
func (b *Balancer) WaitFlow(t testing.TB, client net.Addr) Line {
	t.Helper()
	return b.WaitLine(t, "end of the flow of "+client.String(), func(l Line) bool {
		return l.IsFlow() && l.Client == client.String()
	})
}

// WaitSessions waits until there are n access lines and returns all there are.
func (b *Balancer) WaitSessions(t testing.TB, n int) []Line {
	t.Helper()
	var seen int
	_, _, found := b.log.find(0, Patience, func(l Line) bool {
		if l.IsAccess() {
			seen++
		}
		return seen >= n
	})
	if !found && n > 0 {
		t.Fatalf("%d sessions ended, expected %d", seen, n)
	}
	return b.Sessions()
}

// Sessions returns the access lines so far.
func (b *Balancer) Sessions() []Line {
	var sessions []Line
	for _, line := range b.log.all() {
		if line.IsAccess() {
			sessions = append(sessions, line)
		}
	}
	return sessions
}

// Lines returns all lines of the log so far.
func (b *Balancer) Lines() []Line { return b.log.all() }

// BackendList writes addresses as the value of a pool's key backends; the names are b1, b2 and so on.
func BackendList(addresses ...string) string { return BackendListWith(nil, addresses...) }

// BackendListWith is BackendList with further keys for each backend, such as "weight = 2"; backends beyond the length
// of keys have none.
func BackendListWith(keys []string, addresses ...string) string {
	entries := make([]string, len(addresses))
	for i, address := range addresses {
		entries[i] = fmt.Sprintf("{ address = %q, name = \"b%d\"", address, i+1)
		if i < len(keys) && keys[i] != "" {
			entries[i] += ", " + keys[i]
		}
		entries[i] += " }"
	}
	return "[" + strings.Join(entries, ", ") + "]"
}
