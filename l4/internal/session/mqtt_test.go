package session_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// connectOf returns the CONNECT of an MQTT 3.1.1 client.
func connectOf(id string) []byte {
	body := "\x00\x04MQTT\x04\x02\x00\x3c" + string([]byte{byte(len(id) >> 8), byte(len(id))}) + id
	length := []byte{byte(len(body))}
	if len(body) >= 0x80 {
		length = []byte{byte(len(body)) | 0x80, byte(len(body) >> 7)}
	}
	return append(append([]byte{0x10}, length...), body...)
}

// startMQTT starts a server whose pool hashes MQTT client identifiers, with backends that greet with their number. to
// returns the greeting for an identifier, or for a client of this machine without one.
func startMQTT(t *testing.T, change func(*l4.ListenerSpec)) (x *prefaced, to func(id string) string) {
	t.Helper()
	x = startPrefaced(t, nil)
	p, err := pool.New(pool.Options{
		Name: "brokers", Algorithm: "client_hash", Initial: pool.Healthy, ConnectTimeout: time.Second,
		HashName: true, NamedBy: pool.MQTTClientID,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		at := netip.MustParseAddrPort(backend(t, func(c *net.TCPConn) {
			fmt.Fprint(c, i)
			echo(c)
		}))
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: at, Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	x.one = p
	ls := spec(p)
	ls.MQTT, ls.InspectTimeout = true, patience
	if change != nil {
		change(&ls)
	}
	if err := x.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
		t.Fatal(err)
	}
	return x, func(id string) string {
		pc := pool.PickContext{Client: netip.MustParseAddrPort("127.0.0.1:1")}
		if id != "" {
			pc.Name = pool.NameKey([]byte(id))
		}
		return p.Explain(pc).Backend
	}
}

// TestMQTTNames holds that a session goes by the identifier in its CONNECT, that the backend gets all bytes, however
// they come, and that clients of anything else go by their address.
func TestMQTTNames(t *testing.T) {
	x, to := startMQTT(t, nil)
	testMQTTNames(t, x, to)
}

// TestMQTTNamesRead is TestMQTTNames with a preface that reads the bytes.
func TestMQTTNamesRead(t *testing.T) {
	x, to := startMQTT(t, nil)
	l4test.SetPrefaces(x.Server, "test", session.ReadMQTTAloud(patience))
	testMQTTNames(t, x, to)
}

func testMQTTNames(t *testing.T, x *prefaced, to func(id string) string) {
	used := map[string]bool{}
	type client struct{ name, sends, goes string }
	var clients []client
	for i := range 12 {
		id := fmt.Sprint("sensor-", i)
		used[to(id)] = true
		clients = append(clients, client{id, string(connectOf(id)), to(id)})
	}
	if len(used) != 3 {
		t.Fatalf("the identifiers go to %v", used)
	}
	long := strings.Repeat("x", 1000)
	clients = append(clients,
		client{"long", string(connectOf(long)), to(long)},
		client{"more behind", string(connectOf("sensor-1")) + "\xe0\x00", to("sensor-1")},
		client{"no identifier", string(connectOf("")), to("")},
		client{"another version", strings.Replace(string(connectOf("a")), "MQTT\x04", "MQTT\x09", 1), to("")},
		client{"HTTP", "GET / HTTP/1.1\r\n\r\n", to("")},
		client{"TLS", string(l4test.ClientHello(t, "sensor-1")), to("")},
		client{"one wrong byte", "\x00", to("")},
	)
	for _, test := range clients {
		for _, step := range []int{len(test.sends), 5, 1} {
			c := dial(t, address(x.Server))
			for part := range slices.Chunk([]byte(test.sends), step) {
				if len(test.sends) < 100 && step < len(test.sends) {
					time.Sleep(50 * time.Microsecond)
				}
				if _, err := c.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			c.CloseWrite()
			got, err := io.ReadAll(c)
			if err != nil || string(got) != test.goes+test.sends {
				t.Errorf("%s by %d: %.40q, error %v; want backend %s", test.name, step, got, err, test.goes)
			}
			line := x.lines.Next(t)
			if line.In != uint64(len(test.sends)) || line.Reason != tally.ClientClosed.String() {
				t.Errorf("%s by %d: %+v", test.name, step, line)
			}
		}
	}
}

// TestMQTTOnlyWhereNeeded holds that a session is not looked at if its pool needs no identifier: a backend that speaks
// first is reached.
func TestMQTTOnlyWhereNeeded(t *testing.T) {
	x, _ := startMQTT(t, nil)
	ls := spec(otherPool(t, backend(t, func(c *net.TCPConn) { c.Write([]byte("hello")) })))
	ls.MQTT, ls.InspectTimeout = true, patience
	if err := x.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, address(x.Server))
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("got %q, error %v", got, err)
	}
}

// TestMQTTForgetsServerName holds that behind routes the server name is not taken for the identifier.
func TestMQTTForgetsServerName(t *testing.T) {
	x, to := startMQTT(t, func(ls *l4.ListenerSpec) {
		ls.Routes = []l4.Route{{ServerNames: []string{"*"}, Pool: ls.Pool}}
	})
	for i := range 5 {
		hello := l4test.ClientHello(t, fmt.Sprintf("s%d.example.com", i))
		c := dial(t, address(x.Server))
		c.Write(hello)
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != to("")+string(hello) {
			t.Errorf("%.10q, error %v; want backend %s", got, err, to(""))
		}
	}
}

// TestMQTTEnds holds how a session ends whose client never finishes its CONNECT.
func TestMQTTEnds(t *testing.T) {
	const soon = 50 * time.Millisecond
	connect := connectOf("sensor-1")
	for name, test := range map[string]struct {
		patience time.Duration
		client   func(*net.TCPConn)
		want     l4.Reason
	}{
		"nothing":        {soon, func(*net.TCPConn) {}, tally.InspectTimeout},
		"half a CONNECT": {soon, func(c *net.TCPConn) { c.Write(connect[:9]) }, tally.InspectTimeout},
		"an identifier that never ends": {soon, func(c *net.TCPConn) { c.Write(connectOf(strings.Repeat("x", 9000))[:5000]) },
			tally.InspectTimeout},
		"a closed half at once": {patience, func(c *net.TCPConn) { c.CloseWrite() }, tally.Probe},
		"half a CONNECT and a closed half": {patience, func(c *net.TCPConn) {
			c.Write(connect[:9])
			c.CloseWrite()
		}, tally.ClientClosed},
		"half a CONNECT and a reset": {patience, func(c *net.TCPConn) {
			c.Write(connect[:9])
			time.Sleep(soon)
			resets(c)
		}, tally.ClientReset},
	} {
		for _, aloud := range []bool{false, true} {
			x, _ := startMQTT(t, func(ls *l4.ListenerSpec) { ls.InspectTimeout = test.patience })
			if aloud {
				l4test.SetPrefaces(x.Server, "test", session.ReadMQTTAloud(test.patience))
			}
			test.client(dial(t, address(x.Server)))
			if line := x.lines.Next(t); line.Reason != test.want.String() || line.Backend != "" {
				t.Errorf("%s, read %v: %+v", name, aloud, line)
			}
			if n := l4test.Info(x.Server).Ended[test.want]; n != 1 {
				t.Errorf("%s, read %v: %d sessions are counted", name, aloud, n)
			}
		}
	}
}

// TestManyUnfinishedConnects holds that clients that never finish their CONNECT wake the loop for nothing, that others
// are served meanwhile, and that all are refused in time.
func TestManyUnfinishedConnects(t *testing.T) {
	clients := withDescriptors(t, 2000)
	const limit = 4 * time.Second
	x, to := startMQTT(t, func(ls *l4.ListenerSpec) { ls.InspectTimeout = limit })
	connect := connectOf(strings.Repeat("x", 1000))
	for i := range clients {
		dial(t, address(x.Server)).Write(connect[:1+i%(len(connect)-1)])
	}
	l4test.Eventually(t, "all are there", func() bool { return x.Sessions() == clients })
	c := dial(t, address(x.Server))
	c.Write(connectOf("sensor-1"))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != to("sensor-1")+string(connectOf("sensor-1")) {
		t.Errorf("another client got %q, error %v", got, err)
	}
	if anySession(x.Server, func(s *session.Session) bool { return s.Preface() == nil }) {
		t.Error("a session has no preface")
	}
	l4test.Eventually(t, "all are refused", func() bool { return x.Sessions() == 0 })
	if n := l4test.Info(x.Server).Ended[tally.InspectTimeout]; n != uint64(clients) {
		t.Errorf("%d of %d are refused", n, clients)
	}
}
