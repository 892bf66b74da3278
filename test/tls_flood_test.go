package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// raiseDescriptors raises the limit of open files to want, as far as is allowed, and returns what it is now.
func raiseDescriptors(t *testing.T, want uint64) int {
	t.Helper()
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur < want {
		limit.Cur, limit.Max = want, max(want, limit.Max)
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
			check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
		}
	}
	return int(limit.Cur)
}

// TestTLSFlood has 10,000 clients that send one byte of a hello and nothing more, and at the same time 10,000 that send
// a whole hello and nothing more. It holds that the balancer's memory is bounded, that sessions and new clients of this
// and another listener are served, and that all are turned away in time.
func TestTLSFlood(t *testing.T) {
	t.Parallel()
	// Most of it is handshakes in progress, 2,048 of each loop, and what the garbage collector has not freed yet.
	memory := int64(128<<20 + runtime.NumCPU()*2048*(64<<10))
	// The balancer takes two descriptors for each session, and accepts no client for whom it has none.
	each := min(10_000, (raiseDescriptors(t, 44_000)-4000)/4)
	counts := [2]int{each, each}
	if each < 10_000 { // rather more handshakes than can be in progress than as many of each kind
		counts = [2]int{each / 2, 2*each - each/2}
	}
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	backend := harness.Serve(t, harness.Echo)
	flooded, calm := harness.FreeAddress(t), harness.FreeAddress(t)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Measured: true, Config: fmt.Sprintf(`
[listener.flooded]
address = %q
pool = "all"
backlog = 4096
%s
[listener.calm]
address = %q
pool = "all"
[pool.all]
backends = [%q]
`, flooded, tlsTable(ca.pairs("www")), calm, backend.Address())})
	secure := func() (*tls.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", flooded,
			&tls.Config{InsecureSkipVerify: true})
	}
	plain := b.Dial(t, "calm")
	established, err := secure()
	check(t, err)
	defer established.Close()
	check(t, harness.PingPong(plain, 1, 100))
	check(t, harness.PingPong(established, 1, 100))
	before := b.AnonMemory(t)
	began := time.Now()

	hello := goHello(t, "www.example.com")
	halves := [2]*shouting{{text: hello[:1], conns: make([]net.Conn, counts[0])},
		{text: hello, conns: make([]net.Conn, counts[1])}}
	var flooding sync.WaitGroup
	for i, half := range halves {
		defer half.close()
		from := net.IPv4(127, 0, 0, byte(2+i)) // 28,000 ports each
		flooding.Go(func() {
			if err := half.shout(flooded, from); err != nil {
				t.Error(err)
			}
		})
	}
	defer flooding.Wait()
	// a message of a session and of a new one without TLS, a message of a session with TLS, and of a new one
	var slowest [3]time.Duration
	var most int64
	talks := [3]func() error{
		func() error { return errors.Join(dialAndPing(calm), harness.PingPong(plain, 1, 100)) },
		func() error { return harness.PingPong(established, 1, 100) },
		func() error {
			c, err := secure()
			if err != nil {
				return err
			}
			defer c.Close()
			return harness.PingPong(c, 1, 100)
		},
	}
	var over atomic.Bool
	go func() { flooding.Wait(); over.Store(true) }() // it ends with the flood
	for !over.Load() || time.Since(began) < 5*time.Second {
		for i, talk := range talks {
			at := time.Now()
			check(t, established.SetDeadline(at.Add(harness.Patience)))
			check(t, talk())
			slowest[i] = max(slowest[i], time.Since(at))
		}
		most = max(most, b.AnonMemory(t)-before)
	}
	t.Logf("%d and %d clients took %d MiB at most; a message waited %v at most, with TLS %v; a new client with TLS %v",
		counts[0], counts[1], most>>20, slowest[0], slowest[1], slowest[2])
	if most > memory {
		t.Errorf("%d MiB of memory, more than %d", most>>20, memory>>20)
	}
	if slowest[0] > 5*time.Second || slowest[1] > 5*time.Second || slowest[2] > 8*time.Second {
		t.Error("others wait for the flood")
	}
	harness.Eventually(t, "all are turned away", func() error {
		if n := metrics(t, b)[`limeload_listener_refused_total{listener="flooded",reason="handshake_timeout"}`]; int(n) !=
			counts[0]+counts[1] {
			return fmt.Errorf("%v were", n)
		}
		return nil
	})
	t.Logf("all were turned away %v after the first", time.Since(began))
	check(t, harness.PingPong(plain, 1, 100))
	check(t, established.SetDeadline(time.Now().Add(harness.Patience)))
	check(t, harness.PingPong(established, 1, 100))
}

// shouting are clients that all send the same text, and nothing more.
type shouting struct {
	text  []byte
	conns []net.Conn // nil for those that have not come yet
}

// shout has all of them connect to an address.
func (s *shouting) shout(at string, from net.IP) error {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: harness.Patience}
	for i := range s.conns {
		c, err := dialer.Dial("tcp", at)
		if err != nil {
			return err
		}
		s.conns[i] = c
		if _, err := c.Write(s.text); err != nil {
			return err
		}
	}
	return nil
}

func (s *shouting) close() {
	for _, c := range s.conns {
		if c != nil {
			c.Close()
		}
	}
}

// dialAndPing connects to an address, and has one message echoed.
func dialAndPing(at string) error {
	c, err := net.DialTimeout("tcp", at, harness.Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	return harness.PingPong(c, 1, 100)
}

// TestTLSSlowHello has clients that send their hello byte by byte, and holds that the loops sleep meanwhile, that no
// goroutine serves them, and that each of them is served in the end.
func TestTLSSlowHello(t *testing.T) {
	t.Parallel()
	const clients, slow = 50, 40 // bytes that come one by one
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	backend := harness.Serve(t, harness.Echo)
	b := world{Backends: []string{backend.Address()}, Listener: []string{tlsTable(ca.pairs("www"))}}.start(t)
	fast, err := tls.Dial("tcp", b.Address(t, "main"), &tls.Config{InsecureSkipVerify: true})
	check(t, err) // the threads for handshakes run from now on
	check(t, fast.Close())
	turns := func() (n float64) {
		for key, value := range metrics(t, b) {
			if len(key) > 25 && key[:25] == "limeload_loop_turns_total" {
				n += value
			}
		}
		return n
	}
	var conns []*slowConn
	var shaking sync.WaitGroup
	for range clients {
		c := &slowConn{TCPConn: b.Dial(t, "main"), slow: slow, passed: make(chan struct{})}
		conns = append(conns, c)
		shaking.Go(func() {
			secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := secure.Handshake(); err != nil {
				t.Error(err)
			}
			if err := harness.PingPong(secure, 1, 100); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range conns {
		c.push(t, 6) // the record's header, which says how long the hello is
	}
	harness.Eventually(t, "all are being inspected", func() error {
		if n := metrics(t, b)[`limeload_listener_sessions{listener="main"}`]; n < clients {
			return fmt.Errorf("%v sessions", n)
		}
		return nil
	})
	goroutinesBefore, turnsBefore := metrics(t, b)["go_goroutines"], turns()
	for range slow - 6 {
		for _, c := range conns {
			c.push(t, 1)
		}
		time.Sleep(10 * time.Millisecond) // so that each byte is a segment of its own
	}
	woken, more := turns()-turnsBefore, metrics(t, b)["go_goroutines"]-goroutinesBefore
	t.Logf("%d bytes in segments of their own: the loops woke up %v times, %v more goroutines", clients*(slow-6), woken,
		more)
	if woken > clients*(slow-6)/4 {
		t.Errorf("%v turns for %d bytes", woken, clients*(slow-6))
	}
	if more > 10 {
		t.Errorf("%v more goroutines", more)
	}
	for _, c := range conns {
		close(c.passed)
	}
	shaking.Wait()
}

// A slowConn holds back what its user writes first, until passed is closed; push sends it byte by byte.
type slowConn struct {
	*net.TCPConn
	slow   int // bytes that push sends
	passed chan struct{}

	mu    sync.Mutex // guards the fields below
	first []byte     // what was written first, as far as it is not sent
	begun bool
}

// Write implements net.Conn.
func (c *slowConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.begun {
		c.mu.Unlock()
		return c.TCPConn.Write(p)
	}
	c.begun, c.first = true, p
	c.mu.Unlock()
	<-c.passed
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.TCPConn.Write(c.first)
	return len(p), err
}

// push sends n bytes of what is held back, once it is there.
func (c *slowConn) push(t *testing.T, n int) {
	t.Helper()
	harness.Eventually(t, "the hello is made", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.begun {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.TCPConn.Write(c.first[:n])
	check(t, err)
	c.first = c.first[n:]
}
