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

// errICMPPermission is wrapped by the error of a check that had no right to open its socket.
var errICMPPermission = errors.New("no permission for icmp: let net.ipv4.ping_group_range have our group, " +
	"or give us CAP_NET_RAW (AmbientCapabilities=CAP_NET_RAW in the unit)")

// sendPause is the time between attempts to send while the socket's buffer is full. Usually it is full of echoes that
// wait for the link-layer addresses of other targets.
const sendPause = 5 * time.Millisecond

// ICMP checks that a target answers an echo request ("ping"), over IPv4 or IPv6. The target's port is ignored. One ICMP
// serves all targets: it has one socket for each of the two families, however many checks run at once. NewICMP makes
// it; Close must be called in the end. Its methods may be called from any goroutine.
//
// The first check that needs a socket opens it; after a socket broke, the next check opens another one. The socket is
// an unprivileged one if the sysctl net.ipv4.ping_group_range (which is for IPv6, too) includes our group. Otherwise it
// is a raw one, which needs CAP_NET_RAW. With neither, checks are inconclusive and say so.
//
// A reply counts if it comes from the target's address and has the number and the random bytes of the echo of this
// check. Late and repeated replies are ignored, and so are replies to others, which a raw socket receives too. An ICMP
// error about the echo fails the check at once. Linux notices only after three seconds that a host of the own network
// does not answer requests for its link-layer address; a shorter check times out before that.
//
// The check sends the echo a second time halfway through its time.
type ICMP struct {
	kinds []icmpKind // set once, then read-only; nil = all, as above

	readers sync.WaitGroup // one for each open socket

	// mu guards the fields below
	mu      sync.Mutex
	closed  bool
	sockets map[bool]*icmpSocket // the open sockets; the key says whether it is for IPv6
}

// NewICMP returns a checker. It opens nothing yet.
func NewICMP() *ICMP { return &ICMP{sockets: make(map[bool]*icmpSocket)} }

// Close ends all running checks as inconclusive, and makes later ones inconclusive. It returns when the last goroutine
// has ended.
func (c *ICMP) Close() {
	c.mu.Lock()
	c.closed = true
	for _, s := range c.sockets {
		s.close() // its reader takes it out of the map
	}
	c.mu.Unlock()
	c.readers.Wait()
}

// An echo is the echo request of one check. icmpSocket.begin makes it.
type echo struct {
	// set once, then read-only
	to     netip.Addr // without a zone
	via    syscall.Sockaddr
	token  echoToken
	seq    uint16
	packet []byte

	done chan echoOutcome // gets one outcome and has room for it; nobody closes it
}

// An echoOutcome is the reply to an echo, or the error that came instead.
type echoOutcome struct {
	at  time.Time
	err error // nil after a reply
}

// Check sends an echo to t and waits for the reply.
func (c *ICMP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	start := time.Now()
	if t.Path != "" {
		return healthcheck.Result{}, notOverUDP()
	}
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
		case <-again.C: // only once, since the timer is not reset
		}
	}
}

// result returns the result of the check whose echo was sent at a time.
func (o *echoOutcome) result(sent time.Time) (healthcheck.Result, error) {
	if o.err != nil {
		return healthcheck.Result{}, o.err
	}
	return healthcheck.Result{Latency: o.at.Sub(sent), Detail: "echo reply"}, nil
}

// send sends e as soon as the socket's buffer has room. If the outcome comes before that, it returns the outcome.
func (c *ICMP) send(ctx context.Context, s *icmpSocket, e *echo) (*echoOutcome, error) {
	for {
		err := s.send(e)
		switch {
		case err == nil:
			return nil, nil
		case errors.Is(err, fs.ErrClosed): // then e gets an outcome as well, see icmpSocket.send and ICMP.read
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

// begin returns an open socket and an echo that waits for its reply there. It has yet to be sent.
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
		c.drop(s) // the socket broke meanwhile; the next round opens another one
	}
}

// socket returns the socket of a family. It opens one if there is none.
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

// read delivers what s receives, until s breaks or is closed.
func (c *ICMP) read(s *icmpSocket) {
	err := s.read()
	c.drop(s)
	s.fail(err)
}

// drop removes s, which is closed or broken, so that the next check of its family opens another socket.
func (c *ICMP) drop(s *icmpSocket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sockets[s.v6] == s {
		delete(c.sockets, s.v6)
	}
}

// icmpAddress returns an address in the form that the kernel takes. The error is about the zone.
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

// An echoTable has the echoes of one socket that wait for a reply. Its methods may be called from any goroutine;
// newEchoTable makes it.
type echoTable struct {
	id uint16 // the id of all echoes of the socket; set once, then read-only

	// mu guards the fields below
	mu      sync.Mutex
	waiting map[uint16]*echo // by seq
	next    uint16           // the seq to try first
	failed  error            // set when the socket broke or was closed; from then on waiting stays empty
}

func newEchoTable(id uint16) echoTable {
	return echoTable{id: id, waiting: make(map[uint16]*echo), next: uint16(rand.Uint32())}
}

// add gives e a number and lets it wait. It fails if too many echoes wait. After fail, its error wraps fs.ErrClosed.
func (t *echoTable) add(e *echo) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return fmt.Errorf("icmp socket: %w: %w", fs.ErrClosed, t.failed)
	}
	if len(t.waiting) > 1<<15 { // half of all numbers, so that a number is not used again soon
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

// forget removes e, if it still waits.
func (t *echoTable) forget(e *echo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[e.seq] == e {
		delete(t.waiting, e.seq)
	}
}

// settle gives an outcome to the echo that was sent to an address and that m is about. It does nothing if no such echo
// waits.
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

// fail gives all waiting echoes an inconclusive outcome because of err, and makes add fail.
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
