package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// errICMPPermission is wrapped by the error of a check that could not open its socket.
var errICMPPermission = errors.New("no permission for icmp: let net.ipv4.ping_group_range have our group, " +
	"or give us CAP_NET_RAW (AmbientCapabilities=CAP_NET_RAW in the unit)")

// sendPause is the time between attempts to send while the socket's buffer is full: of echoes, as a rule, that wait for the
// link-layer addresses of other targets.
const sendPause = 5 * time.Millisecond

// ICMP checks that a target answers an echo request ("ping"), for IPv4 and IPv6. Its ports do not matter. One ICMP is meant
// for all targets: it has one socket for each of the two families, however many checks run at once. NewICMP makes it,
// and Close ends it; the other methods may be called from any goroutine.
//
// A socket is opened by the first check that needs it, and opened again after it broke. It is an unprivileged one
// where the sysctl net.ipv4.ping_group_range (which is for IPv6, too) has our group, or else a raw one, which
// takes CAP_NET_RAW. With neither, checks are inconclusive and say so.
//
// An answer is one to the echo of this very check, from the target's address, with its number and the random bytes it
// carries. All else is ignored: late and repeated answers, and those to others, which a raw socket sees. An ICMP error about
// our echo fails the check at once. That a host of the own network is gone Linux finds out after three seconds only (of
// asking for its link-layer address); a shorter check times out.
//
// The echo is sent again once, halfway.
type ICMP struct {
	kinds []icmpKind // set once, then read-only; nil = all, as above

	readers sync.WaitGroup // one for each open socket

	// mu guards the fields below
	mu      sync.Mutex
	closed  bool
	sockets map[bool]*icmpSocket // those open; true is IPv6
}

// NewICMP returns a checker. It opens nothing yet.
func NewICMP() *ICMP { return &ICMP{sockets: make(map[bool]*icmpSocket)} }

// Close ends all checks under way, as inconclusive, and those to come. It returns when the last goroutine is gone.
func (c *ICMP) Close() {
	c.mu.Lock()
	c.closed = true
	for _, s := range c.sockets {
		s.close() // its reader takes it out of the map
	}
	c.mu.Unlock()
	c.readers.Wait()
}

// An echo is one check's request on its way. Its zero value is of no use.
type echo struct {
	// set once, then read-only
	to     netip.Addr // without a zone
	via    syscall.Sockaddr
	token  echoToken
	seq    uint16
	packet []byte

	done chan echoOutcome // has room for the only one
}

// An echoOutcome is how a check ended that did not time out.
type echoOutcome struct {
	at  time.Time
	err error // nil after a reply
}

// Check sends an echo to t and waits for the reply.
func (c *ICMP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	start := time.Now()
	via, err := icmpAddress(t.Addr.Addr())
	if err != nil {
		return healthcheck.Result{}, err
	}
	s, e, err := c.begin(ctx, t.Addr.Addr(), via)
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer s.forget(e)
	until, _ := ctx.Deadline()
	again := time.NewTimer(resendDelay(start, until))
	defer again.Stop()
	sent := time.Now()
	for {
		if out, err := c.send(ctx, s, e); err != nil {
			return healthcheck.Result{}, err
		} else if out != nil {
			return out.result(sent)
		}
		select {
		case out := <-e.done:
			return out.result(sent)
		case <-ctx.Done():
			return healthcheck.Result{}, silenceError(ctx, start, "the echo reply")
		case <-again.C: // and not any more: the timer is not reset
		}
	}
}

// result returns what came of an echo that was sent at a time.
func (o *echoOutcome) result(sent time.Time) (healthcheck.Result, error) {
	if o.err != nil {
		return healthcheck.Result{}, o.err
	}
	return healthcheck.Result{Latency: o.at.Sub(sent), Detail: "echo reply"}, nil
}

// send sends e, as soon as there is room for it. It returns an outcome when that was there first.
func (c *ICMP) send(ctx context.Context, s *icmpSocket, e *echo) (*echoOutcome, error) {
	for {
		err := s.send(e)
		switch {
		case err == nil:
			return nil, nil
		case errors.Is(err, fs.ErrClosed): // whoever closed it tells e as well
			out := <-e.done
			return &out, nil
		case !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.ENOBUFS):
			return nil, udpError(ctx, err)
		}
		select {
		case out := <-e.done:
			return &out, nil
		case <-ctx.Done():
			return nil, udpError(ctx, syscall.ENOBUFS)
		case <-time.After(sendPause):
		}
	}
}

// begin returns an echo that waits for its reply on an open socket.
func (c *ICMP) begin(ctx context.Context, to netip.Addr, via syscall.Sockaddr) (*icmpSocket, *echo, error) {
	for {
		s, err := c.socket(!to.Unmap().Is4())
		if err != nil {
			if errors.Is(err, syscall.EAFNOSUPPORT) {
				return nil, nil, unhealthyf(noLocalAddress).because(err)
			}
			var errno syscall.Errno
			words := err.Error()
			if errors.As(err, &errno) && !errors.Is(err, errICMPPermission) {
				words = "icmp socket: " + errno.Error()
			}
			return nil, nil, cannotCheckf("%s", words).because(err)
		}
		e, err := s.begin(to.Unmap().WithZone(""), via)
		if err == nil {
			return s, e, nil
		}
		if !errors.Is(err, fs.ErrClosed) || ctx.Err() != nil {
			return nil, nil, cannotCheckf("%v", err).because(err)
		}
		c.drop(s) // it broke since; the next one is opened
	}
}

// socket returns the socket of a family, which it opens when there is none.
func (c *ICMP) socket(v6 bool) (*icmpSocket, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("the check is closed: %w", net.ErrClosed)
	}
	if s := c.sockets[v6]; s != nil {
		return s, nil
	}
	s, err := openICMP(v6, c.kinds)
	if err != nil {
		return nil, err
	}
	c.sockets[v6] = s
	c.readers.Go(func() { c.read(s) })
	return s, nil
}

// read delivers what s receives until it breaks, or is closed.
func (c *ICMP) read(s *icmpSocket) {
	err := s.read()
	c.drop(s)
	s.fail(err)
}

// drop has the next check of its family open another socket than s, which is closed.
func (c *ICMP) drop(s *icmpSocket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sockets[s.v6] == s {
		delete(c.sockets, s.v6)
	}
}

// icmpAddress returns an address as the kernel wants it.
func icmpAddress(a netip.Addr) (syscall.Sockaddr, error) {
	if a = a.Unmap(); a.Is4() {
		return &syscall.SockaddrInet4{Addr: a.As4()}, nil
	}
	to := &syscall.SockaddrInet6{Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			to.ZoneId = uint32(i.Index)
		} else if n, numeric := strconv.ParseUint(zone, 10, 32); numeric == nil {
			to.ZoneId = uint32(n)
		} else {
			return nil, unhealthyf("no network interface %s", escaped(zone)).because(err)
		}
	}
	return to, nil
}

// An echoTable is the echoes of one socket that wait for a reply. Its methods may be called from any goroutine; newEchoTable
// makes it.
type echoTable struct {
	id uint16 // of all its echoes; set once, then read-only

	// mu guards the fields below
	mu      sync.Mutex
	waiting map[uint16]*echo // by seq
	next    uint16           // seq, unless it waits still
	failed  error            // set once, when the socket is of no use any more; then waiting stays empty
}

func newEchoTable(id uint16) echoTable {
	return echoTable{id: id, waiting: make(map[uint16]*echo), next: uint16(rand.Uint32())}
}

// add gives e its number. It fails when all are taken, or after fail: then with fs.ErrClosed.
func (t *echoTable) add(e *echo) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return fmt.Errorf("icmp socket: %w: %w", fs.ErrClosed, t.failed)
	}
	if len(t.waiting) > 1<<15 { // half of all numbers: one that was just in use is then not in use again soon
		return errors.New("too many echoes at once")
	}
	for t.waiting[t.next] != nil {
		t.next++
	}
	e.seq = t.next
	t.next++
	t.waiting[e.seq] = e
	return nil
}

// forget ends the wait of e, if it still waits.
func (t *echoTable) forget(e *echo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[e.seq] == e {
		delete(t.waiting, e.seq)
	}
}

// settle ends the wait of the echo that was sent to an address and that m is about, if there is one.
func (t *echoTable) settle(to netip.Addr, m echoMessage, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.waiting[m.seq]
	if e == nil || m.id != t.id || e.to != to || m.whole && m.token != e.token {
		return
	}
	delete(t.waiting, m.seq)
	e.done <- echoOutcome{time.Now(), err}
}

// fail ends the wait of all echoes, and of those to come.
func (t *echoTable) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return
	}
	t.failed = err
	why := cannotCheckf("the icmp socket broke")
	if errors.Is(err, fs.ErrClosed) {
		why = cannotCheckf("the icmp socket was closed")
	}
	_ = why.because(err)
	for _, e := range t.waiting {
		e.done <- echoOutcome{time.Now(), why}
	}
	clear(t.waiting)
}
