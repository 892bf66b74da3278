package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// routed is a listener whose default pool says "1", and that sends two.example.com and all below it to a pool that says
// "2".
func startRouted(t *testing.T, change func(*l4.ListenerSpec)) *prefaced {
	t.Helper()
	x := startPrefaced(t, nil)
	x.two = otherPool(t, backend(t, func(c *net.TCPConn) {
		c.Write([]byte("2"))
		echo(c)
	}))
	ls := spec(x.one)
	ls.InspectTimeout = patience
	ls.Routes = []l4.Route{
		{ServerNames: []string{"two.example.com", "*.two.example.com"}, Pool: x.two},
		{Protocols: []string{"two"}, Pool: x.two},
	}
	if change != nil {
		change(&ls)
	}
	if err := x.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestInspected holds that the hello of each client chooses its pool, and that the backend gets it whole, however it
// comes: at once, byte by byte, in many records, with bytes behind it.
func TestInspected(t *testing.T) {
	x := startRouted(t, nil)
	for _, test := range []struct {
		name, protocol, greeting, pool string
	}{
		{"one.example.com", "h2", "1", "pool"},
		{"two.example.com", "h2", "2", "two"},
		{"A.Two.example.com", "h2", "2", "two"},
		{"one.example.com", "two", "2", "two"},
		{"", "h2", "1", "pool"},
	} {
		hello := l4test.ClientHello(t, test.name, test.protocol)
		for how, sent := range map[string][]byte{
			"whole": hello, "records": l4test.InRecords(hello, 100), "tiny records": l4test.InRecords(hello, 1),
			"more behind": append(slices.Clone(hello), "early data"...),
		} {
			for _, step := range []int{len(sent), 1 + len(sent)/7, 11} {
				c := dial(t, address(x.Server))
				for part := range slices.Chunk(sent, step) {
					if step < len(sent) {
						time.Sleep(50 * time.Microsecond) // else the kernel makes a few segments of all
					}
					if _, err := c.Write(part); err != nil {
						t.Fatal(err)
					}
				}
				c.CloseWrite()
				got, err := io.ReadAll(c)
				if want := test.greeting + string(sent); err != nil || string(got) != want {
					t.Errorf("%q, %s by %d: %d bytes of %d, error %v", test.name, how, step, len(got), len(want), err)
				}
				line := x.lines.Next(t)
				if line.Pool != test.pool || line.In != uint64(len(sent)) ||
					line.Reason != tally.ClientClosed.String() {
					t.Errorf("%q, %s by %d: %+v", test.name, how, step, line)
				}
			}
		}
	}
}

// TestInspectedBehindProxy holds that a hello behind a PROXY header chooses the pool, and that the header names the
// client, whether both come at once or byte by byte.
func TestInspectedBehindProxy(t *testing.T) {
	x := startRouted(t, func(ls *l4.ListenerSpec) {
		ls.Proxy = l4.ProxySettings{Versions: l4.ProxyV1, Trusted: loopback, Timeout: patience}
	})
	hello := l4test.ClientHello(t, "two.example.com", "h2")
	sent := append([]byte("PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n"), hello...)
	for _, step := range []int{len(sent), 1 + len(sent)/9, 1} {
		c := dial(t, address(x.Server))
		for part := range slices.Chunk(sent, step) {
			if _, err := c.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "2"+string(hello) {
			t.Errorf("by %d: %d bytes, error %v", step, len(got), err)
		}
		if line := x.lines.Next(t); line.Pool != "two" || line.Client != "192.0.2.7:4711" {
			t.Errorf("by %d: %+v", step, line)
		}
	}
}

// TestInspectLarge has a client send a hello that nearly fills what a hello may have, and all that the kernel takes
// before it is read.
func TestInspectLarge(t *testing.T) {
	x := startRouted(t, nil)
	var protocols []string
	for i := range 230 {
		protocols = append(protocols, fmt.Sprintf("%0250d", i))
	}
	hello := l4test.ClientHello(t, "two.example.com", protocols...)
	if len(hello) < 57<<10 {
		t.Fatalf("the hello has %d bytes", len(hello))
	}
	for _, step := range []int{len(hello), 1000} {
		c := dial(t, address(x.Server))
		for part := range slices.Chunk(hello, step) {
			c.Write(part)
		}
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "2"+string(hello) {
			t.Errorf("by %d: %d bytes, error %v", step, len(got), err)
		}
		x.lines.Next(t)
	}
}

// TestInspectBehindPreface has another preface before the inspection, and all bytes come in one event.
func TestInspectBehindPreface(t *testing.T) {
	x := startRouted(t, nil)
	first := named(t)
	routes := []l4.Route{{ServerNames: []string{"two.example.com"}, Pool: x.two}}
	l4test.SetPrefaces(x.Server, "test", first, session.NewInspector(routes, patience, 1))
	hello := l4test.ClientHello(t, "two.example.com")
	c := dial(t, address(x.Server))
	c.Write(append([]byte("I am 7"), hello...))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "2"+string(hello) {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	if line := x.lines.Next(t); line.Pool != "two" || line.Client != realClient.String() {
		t.Errorf("%+v", line)
	}
}

// TestInspectEnds holds how a session ends whose client sends no hello, or one that no route fits.
func TestInspectEnds(t *testing.T) {
	const soon = 50 * time.Millisecond
	hello := l4test.ClientHello(t, "one.example.com", "h2")
	alert := func(what byte) string { return string([]byte{21, 3, 3, 0, 2, 2, what}) }
	broken := slices.Clone(hello)
	broken[5+4] = 9 // the version
	address := bytes.Replace(l4test.ClientHello(t, "a192.0.2.17"), []byte("a192.0.2.17"), []byte("1192.0.2.17"), 1)
	sends := func(what string) func(*net.TCPConn) { return func(c *net.TCPConn) { c.Write([]byte(what)) } }
	for _, test := range []struct {
		name     string
		patience time.Duration
		client   func(*net.TCPConn)
		want     l4.Reason
		gets     string // "reset", or what is sent before the end
	}{
		{"no route", patience, sends(string(hello)), tally.NoRoute, alert(112)},
		{"no name", patience, sends(string(l4test.ClientHello(t, ""))), tally.NoRoute, alert(112)},
		{"an address as name", patience, sends(string(address)), tally.Malformed, alert(112)},
		{"malformed", patience, sends(string(broken)), tally.Malformed, alert(50)},
		{"too long", patience, sends("\x16\x03\x01\x40\x00\x01\x01\x00\x00"), tally.Malformed, alert(50)},
		{"plain text", patience, sends("GET / HTTP/1.1\r\n\r\n"), tally.NotTLS, "refused"},
		{"SSLRequest of Postgres", patience, sends("\x00\x00\x00\x08\x04\xd2\x16\x2f"), tally.NotTLS, "refused"},
		{"an alert", patience, sends(alert(0)), tally.NotTLS, "refused"},
		{"nothing", soon, sends(""), tally.InspectTimeout, "refused"},
		{"one byte", soon, sends("\x16"), tally.InspectTimeout, "refused"},
		{"half a hello", soon, sends(string(hello[:len(hello)/2])), tally.InspectTimeout, "refused"},
		{"a closed half at once", patience, func(c *net.TCPConn) { c.CloseWrite() }, tally.Probe, ""},
		{"half a hello and a closed half", patience, func(c *net.TCPConn) {
			c.Write(hello[:len(hello)/2])
			c.CloseWrite()
		}, tally.ClientClosed, "reset"},
		{"a reset at once", patience, resets, tally.Probe, "gone"},
		{"half a hello and a reset", patience, func(c *net.TCPConn) {
			c.Write(hello[:len(hello)/2])
			time.Sleep(soon)
			resets(c)
		}, tally.ClientReset, "gone"},
	} {
		for how, refuse := range map[string]l4.Refusal{"reset": l4.RefuseReset, "close": l4.RefuseClose} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				x := startRouted(t, func(ls *l4.ListenerSpec) {
					ls.Pool, ls.Refuse, ls.InspectTimeout = nil, refuse, test.patience
				})
				c := dial(t, l4test.Address(x.Server))
				test.client(c)
				if test.gets != "gone" {
					got, err := io.ReadAll(c)
					wantReset := test.gets == "reset" || test.gets == "refused" && refuse == l4.RefuseReset
					if strings.HasPrefix(test.gets, "\x15") && string(got) != test.gets || (err != nil) != wantReset {
						t.Errorf("got %q, error %v", got, err)
					}
				}
				line := x.lines.Next(t)
				if line.Reason != test.want.String() || line.Backend != "" || line.Pool != "" {
					t.Errorf("%+v", line)
				}
				if n := l4test.Info(x.Server).Ended[test.want]; n != 1 {
					t.Errorf("%d sessions are counted", n)
				}
			})
		}
	}
}

// TestInspectSleeps holds that a client that sends its hello byte by byte does not wake the loop for each. After some
// hundred such segments the kernel's buffer is full of them, and it reports each: then the loop looks once for each.
// The runtime may wake it, too, which a busy machine makes it do often: so one good round of several is enough.
func TestInspectSleeps(t *testing.T) {
	x := startRouted(t, nil)
	hello := l4test.ClientHello(t, "two.example.com")
	for _, record := range []int{len(hello), 500, 20} {
		sent := l4test.InRecords(hello, record)
		err := errors.New("no round")
		for round := 0; round < 5 && err != nil; round++ {
			err = inspectAsleep(t, x, sent)
		}
		if err != nil {
			t.Errorf("records of %d: %v", record, err)
		}
	}
}

// inspectAsleep sends a hello byte by byte, and returns an error if that woke the loop too often.
func inspectAsleep(t *testing.T, x *prefaced, sent []byte) (err error) {
	t.Helper()
	c := dial(t, address(x.Server))
	l4test.Eventually(t, "the session waits for its hello", func() bool {
		return anySession(x.Server, func(s *session.Session) bool { return s.Preface() != nil })
	})
	begun := x.Loops()[0].Turns
	for i := range sent {
		c.Write(sent[i : i+1])
		time.Sleep(100 * time.Microsecond)
		if turns := x.Loops()[0].Turns - begun; i == 100 && turns > 20 {
			err = fmt.Errorf("%d turns for %d bytes", turns, i)
		}
	}
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || len(got) != 1+len(sent) {
		t.Fatalf("%d bytes, error %v", len(got), err)
	}
	if turns := x.Loops()[0].Turns - begun; turns > uint64(len(sent))+100 {
		err = fmt.Errorf("%d turns for %d bytes", turns, len(sent))
	}
	x.lines.Next(t)
	return err
}

// TestManyUnfinishedHellos holds that clients that never finish their hellos cost little memory and no time, that
// others are served meanwhile, and that all are refused in time.
func TestManyUnfinishedHellos(t *testing.T) {
	clients := withDescriptors(t, 10_000)
	const limit = 10 * time.Second
	began := time.Now()
	x := startRouted(t, func(ls *l4.ListenerSpec) { ls.InspectTimeout = limit })
	hello := l4test.ClientHello(t, "two.example.com")
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = dial(t, address(x.Server))
		conns[i].Write(hello[:1+i%(len(hello)-1)])
	}
	l4test.Eventually(t, "all are there", func() bool { return x.Sessions() == clients })
	time.Sleep(100 * time.Millisecond)
	if time.Since(began) < limit/2 { // on a slow machine there is no time for the rest
		before := x.Loops()[0].Turns
		time.Sleep(time.Second)
		if turns := x.Loops()[0].Turns - before; turns > 200 {
			t.Errorf("%d turns in a second, with nothing to do", turns)
		}
		c := dial(t, address(x.Server))
		c.Write(hello)
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || len(got) != 1+len(hello) {
			t.Errorf("another client got %d bytes, error %v", len(got), err)
		}
	}
	deadline := time.Now().Add(limit + 5*time.Second)
	for x.Sessions() > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if n := l4test.Info(x.Server).Ended[tally.InspectTimeout]; n != uint64(clients) {
		t.Errorf("%d of %d are refused", n, clients)
	}
}

// withDescriptors returns how many clients there can be if each takes two descriptors of this process: as many as are
// wanted if the limit can be raised, and fewer if not.
func withDescriptors(t *testing.T, clients int) int {
	t.Helper()
	const others = 1500
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before, want := limit, uint64(2*clients+others)
	if limit.Cur < want {
		limit.Cur, limit.Max = want, max(want, limit.Max)
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
			t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
			return clients
		}
		t.Logf("the limit of open files, %d, is too low for %d clients", before.Cur, clients)
		return (int(before.Cur) - others) / 2
	}
	return clients
}
