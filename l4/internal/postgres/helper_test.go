package postgres_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// addrPort is an address that must be one.
func addrPort(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }

const patience = 20 * time.Second

// The requests of clients.
var (
	startup    = request(3<<16, "user\x00limeload\x00\x00")
	sslRequest = request(1234<<16|5679, "")
	gssRequest = request(1234<<16|5680, "")
)

func request(code uint32, body string) string {
	m := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(m, code)) + body
}

func cancelRequest(key string) string { return string(wire.AppendPostgresCancel(nil, key)) }

// A server is a backend that speaks enough of Postgres: it logs clients in, with a key for each, and takes cancels.
type server struct {
	address  string
	key      func(n int) string // of the n-th session
	cancels  chan string        // the keys of the cancels it got
	onCancel func(c net.Conn)   // before a cancel's connection is closed; may be nil
	hello    string             // before the greeting
	refuses  string             // the answer to requests for encryption
	sessions atomic.Int64       // there have been
	mu       sync.Mutex         // guards began
	began    []string           // what clients have begun with
}

// serve starts a server whose sessions have keys of so many bytes.
func serve(t *testing.T, keyBytes int) *server {
	t.Helper()
	b := &server{cancels: make(chan string, 1000), refuses: "N"}
	b.address = l4test.Backend(t, func(c *net.TCPConn) { b.handle(c) })
	b.key = func(n int) string {
		key := fmt.Sprintf("%04d%s/%d/", n, b.address, n)
		return (key + strings.Repeat("k", 256))[:4+keyBytes]
	}
	if keyBytes == 4 {
		b.key = func(n int) string { // four bytes that differ from server to server
			return fmt.Sprintf("%04d%s", n, b.address[len(b.address)-4:])
		}
	}
	return b
}

func (b *server) handle(c net.Conn) {
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		kind, length := wire.PostgresHead(head)
		body := make([]byte, max(0, length-8))
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		b.mu.Lock()
		b.began = append(b.began, string(head)+string(body))
		b.mu.Unlock()
		switch kind {
		case wire.PostgresSSL, wire.PostgresGSS:
			io.WriteString(c, b.refuses)
			continue
		case wire.PostgresCancel:
			b.cancels <- string(body)
			if b.onCancel != nil {
				b.onCancel(c)
			}
			return
		case wire.PostgresStartup:
			io.WriteString(c, b.hello+b.greeting(int(b.sessions.Add(1))))
		}
		io.Copy(io.Discard, c)
		return
	}
}

// greeting is what a session gets.
func (b *server) greeting(n int) string {
	return message('R', "\x00\x00\x00\x00") + message('S', "server_version\x0018.1\x00") + message('K', b.key(n)) +
		message('Z', "I")
}

func message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))) + body
}

// A world is a balancer in front of servers.
type world struct {
	*l4.Server
	lines   *l4test.Capture
	pool    *pool.Pool
	servers []*server
}

func start(t *testing.T, change func(*l4.ListenerSpec), servers ...*server) *world {
	t.Helper()
	addresses := make([]string, len(servers))
	for i, b := range servers {
		addresses[i] = b.address
	}
	return startWith(t, l4test.NewPool(t, addresses...), change, servers...)
}

func startWith(t *testing.T, p *pool.Pool, change func(*l4.ListenerSpec), servers ...*server) *world {
	t.Helper()
	x := &world{pool: p, servers: servers}
	spec := l4test.Spec(p)
	spec.Postgres = l4.PostgresSettings{Timeout: patience}
	if change != nil {
		change(&spec)
	}
	lines, log := l4test.NewCapture()
	x.lines, x.Server = lines, l4test.Start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec)
	return x
}

// dial connects a client that sends what is not "".
func (x *world) dial(t *testing.T, sends string) *net.TCPConn {
	t.Helper()
	c := l4test.Dial(t, l4test.Address(x.Server))
	if _, err := io.WriteString(c, sends); err != nil {
		t.Fatal(err)
	}
	return c
}

// gets checks what a client gets next.
func gets(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, error %v, want %q", got[:n], err, want)
	}
}

// getsAll checks what a client gets until an orderly end.
func getsAll(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		t.Errorf("got %q, error %v, want %q and the end", got, err, want)
	}
}

// A login is a session of a client that is logged in.
type login struct {
	*net.TCPConn
	key string
}

// login logs a client in.
func (x *world) login(t *testing.T) login {
	t.Helper()
	c := x.dial(t, startup)
	key := readKey(t, c)
	return login{c, key}
}

// readKey reads a server's greeting up to its end.
func readKey(t *testing.T, c net.Conn) (key string) {
	t.Helper()
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			t.Fatal(err)
		}
		switch head[0] {
		case 'K':
			key = string(body)
		case 'Z':
			return key
		}
	}
}

// cancel sends a cancel, and waits for the end of its connection.
func (x *world) cancel(t *testing.T, key string) {
	t.Helper()
	getsAll(t, x.dial(t, cancelRequest(key)), "")
}

// cancelled returns the keys of the cancels that each server got, and empties the lists.
func (x *world) cancelled() [][]string {
	all := make([][]string, len(x.servers))
	for i, b := range x.servers {
		for len(b.cancels) > 0 {
			all[i] = append(all[i], <-b.cancels)
		}
	}
	return all
}

// wantCancels checks which cancels each server got since the last time.
func (x *world) wantCancels(t *testing.T, want ...[]string) {
	t.Helper()
	if got := x.cancelled(); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("servers got the cancels %q, want %q", got, want)
	}
}

// wantCounts checks how many cancels had each result: sent, unknown, failed and dropped.
func (x *world) wantCounts(t *testing.T, want ...uint64) {
	t.Helper()
	var got []uint64
	for _, r := range l4.CancelResults() {
		got = append(got, l4test.Info(x.Server).Cancels[r])
	}
	if !slices.Equal(got, want) {
		t.Errorf("cancels %v, want %v", got, want)
	}
}

// line returns the next access line that is for that reason.
func (x *world) line(t *testing.T, reason l4.Reason) l4test.AccessLine {
	t.Helper()
	for {
		if line := x.lines.Next(t); line.Reason == reason.String() {
			return line
		}
	}
}
