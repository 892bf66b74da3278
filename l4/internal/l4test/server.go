// Package l4test helps the tests of the data plane: servers, backends and clients on the loopback. It is for tests
// only.
package l4test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
	"github.com/rs/zerolog"
)

// NewPool makes a pool of healthy backends with these addresses.
func NewPool(t testing.TB, addrs ...string) *pool.Pool {
	t.Helper()
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// Spec is a listener on a free port of 127.0.0.1.
func Spec(p *pool.Pool) l4.ListenerSpec {
	return l4.ListenerSpec{Name: "test", Address: netip.MustParseAddrPort("127.0.0.1:0"), Pool: p}
}

// Start runs a server with these listeners until the test ends.
func Start(t testing.TB, o l4.Options, specs ...l4.ListenerSpec) *l4.Server {
	t.Helper()
	s, err := l4.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Shutdown(Done(t))
	})
	if err := s.Apply(l4.Plan{Listeners: specs}); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// Address is where the server's first listener came to stand.
func Address(s *l4.Server) string { return s.Listeners()[0].Address.String() }

// Done returns a context that has ended.
func Done(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// Allocations is how many there are while f runs so many times. testing.AllocsPerRun would leave a loop and the rest of
// the process a single P. Elsewhere in the process something may be allocated now and then.
func Allocations(times int, f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		f()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// A Capture is a log that tests read as lines.
type Capture struct{ lines chan []byte }

// NewCapture returns a capture, and a logger that writes lines of the level info and above to it.
func NewCapture() (*Capture, zerolog.Logger) {
	c := &Capture{make(chan []byte, 1000)}
	return c, zerolog.New(c).Level(zerolog.InfoLevel)
}

// Write implements io.Writer. It keeps a thousand lines, and drops those after them.
func (c *Capture) Write(p []byte) (int, error) {
	select {
	case c.lines <- append([]byte(nil), p...):
	default:
	}
	return len(p), nil
}

// AccessLine is what tests look at of an access line.
type AccessLine struct {
	Session, Listener, Pool, Backend, Client, Reason string
	In                                               uint64 `json:"bytes_in"`
	Out                                              uint64 `json:"bytes_out"`
	Retries                                          int
	QueueTime                                        float64 `json:"queue_time"`
}

// Next returns the next access line.
func (c *Capture) Next(t *testing.T) AccessLine {
	t.Helper()
	select {
	case line := <-c.lines:
		var a AccessLine
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return a
	case <-time.After(Patience):
		t.Fatal("no access line")
		return AccessLine{}
	}
}

// Info is the server's first listener's.
func Info(s *l4.Server) l4.ListenerInfo { return s.Listeners()[0] }

// Hold keeps a loop busy until release is called, or the test ends.
func Hold(t *testing.T, s *l4.Server, i int) (release func()) {
	t.Helper()
	held, free := make(chan struct{}), make(chan struct{})
	RoomsOf(s).Loops[i].Post(func() {
		close(held)
		<-free
	})
	<-held
	release = sync.OnceFunc(func() { close(free) })
	t.Cleanup(release)
	return release
}

// Descriptors counts what the process has open, but for pipes: io.Copy, which backends here use, keeps some until a
// garbage collection. What other tests had may still be closing, so it waits until two counts agree.
func Descriptors(t *testing.T) int {
	t.Helper()
	last := -1
	Eventually(t, "the number of Descriptors is steady", func() bool {
		before := last
		last = OpenDescriptors(t)
		return last == before
	})
	return last
}

// OpenDescriptors counts what the process has open now, but for pipes.
func OpenDescriptors(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// The one that read the folder is closed by now.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// Patience is how long a test waits for what must come: a busy machine is no fault.
const Patience = time.Minute

// Eventually polls until f says so. It sleeps in between: the tests beside it need the processor.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !f(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, Patience)
		}
	}
}

// NewQueuePool makes a pool of backends that take one session each.
func NewQueuePool(t testing.TB, o pool.Options, addrs ...string) *pool.Pool {
	t.Helper()
	o.Name, o.Algorithm, o.Initial = "pool", "least_conn", pool.Healthy
	o.ConnectTimeout, o.Retries = time.Second, 2
	p, err := pool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1, MaxSessions: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// StartWith is start with some of the kernel's ways to move trains.
func StartWith(t testing.TB, offload sock.Offload, o l4.Options, specs ...l4.ListenerSpec) *l4.Server {
	t.Helper()
	s, err := l4.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(Done(t)) })
	*field[sock.Offload](s, "offload") = offload
	rooms := RoomsOf(s)
	for i := range rooms.Loops {
		*field[sock.Offload](rooms.Flows[i], "offload") = offload
		*field[sock.Offload](rooms.Questions[i], "offload") = offload
	}
	if err := s.Apply(l4.Plan{Listeners: specs}); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// WithOffload runs f with the kernel's ways to move trains, and without each.
func WithOffload(t *testing.T, f func(t *testing.T, o sock.Offload)) {
	t.Helper()
	has, err := sock.DetectOffload()
	if err != nil {
		t.Fatal(err)
	}
	if !has.GRO || !has.GSO {
		t.Fatalf("this kernel has not what these tests need: UDP_GRO (%v) and UDP_SEGMENT (%v), Linux 5.0", has.GRO, has.GSO)
	}
	for _, o := range []sock.Offload{{GRO: true, GSO: true}, {GRO: true}, {GSO: true}, {}} {
		t.Run(fmt.Sprintf("GRO %v GSO %v", o.GRO, o.GSO), func(t *testing.T) { f(t, o) })
	}
}

// Rooms are what a server has inside, by the index of the loop.
type Rooms struct {
	Gate      *gate.Gate
	Loops     []*loop.Loop
	Sessions  []*session.Loop
	Flows     []*flow.Loop
	Questions []*dns.Loop
}

// RoomsOf returns what a server has inside. It reads the server's own fields by reflection, so that tests of a room can
// look at it while the whole data plane runs, and no production code is needed for that.
func RoomsOf(s *l4.Server) Rooms {
	return Rooms{
		Gate: *field[*gate.Gate](s, "gate"), Loops: *field[[]*loop.Loop](s, "loops"),
		Sessions: *field[[]*session.Loop](s, "sessions"), Flows: *field[[]*flow.Loop](s, "flows"),
		Questions: *field[[]*dns.Loop](s, "questions"),
	}
}

// field returns a field of a struct, exported or not.
func field[T any](of any, name string) *T {
	return (*T)(unsafe.Pointer(reflect.ValueOf(of).Elem().FieldByName(name).UnsafeAddr()))
}

// OnLoop calls f on a loop, and waits.
func OnLoop(s *l4.Server, i int, f func()) {
	done := make(chan struct{})
	RoomsOf(s).Loops[i].Post(func() {
		defer close(done)
		f()
	})
	<-done
}
