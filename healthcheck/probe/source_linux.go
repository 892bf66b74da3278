package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/limeload/limeload-l4/healthcheck"
)

// From does the check of Checker over connections from one of Sources, the first that this machine has and that is of
// the target's family. A check without such an address is inconclusive. ICMP and Exec ignore it.
type From struct {
	Sources []netip.Addr
	Checker healthcheck.Checker
}

// Check implements healthcheck.Checker.
func (f From) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	t.Sources = &f.Sources
	return f.Checker.Check(ctx, t)
}

// Ask asks the question of Checker.
func (f From) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	t.Sources = &f.Sources
	return healthcheck.Ask(ctx, f.Checker, t), nil
}

// Judge returns what Checker makes of an answer.
func (f From) Judge(answer any) (healthcheck.Result, error) {
	return answer.(healthcheck.Answer).Judge(f.Checker)
}

// Join joins Checker with that of other.
func (f From) Join(other healthcheck.Checker) healthcheck.Checker {
	f.Checker = healthcheck.Join(f.Checker, other.(From).Checker)
	return f
}

// Cost returns what the check costs.
func (f From) Cost() (sockets, programs int) { return healthcheck.CostOf(f.Checker) }

// dialTarget connects to an address of a target, from one of the target's sources if it has any. d has no LocalAddr. If
// no source can be used, or if the address has no port, the error is a checkError.
func dialTarget(
	ctx context.Context, d net.Dialer, network string, t healthcheck.Target, to netip.AddrPort,
) (net.Conn, error) {
	if to.Port() == 0 {
		return nil, cannotCheckf("the backend's address has no port, and the check has none")
	}
	if t.Sources == nil {
		return d.DialContext(ctx, network, to.String())
	}
	if network == "tcp" {
		d.Control = bindLate
	}
	unusable := cannotCheckf("no source address is of the target's family")
	for _, from := range *t.Sources {
		if from.Is4() != to.Addr().Unmap().Is4() {
			continue
		}
		if d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)); network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		conn, err := d.DialContext(ctx, network, to.String())
		if err == nil || !isOfSource(err) {
			return conn, err
		}
		number := syscall.Errno(0)
		errors.As(err, &number)
		unusable = cannotCheckf("no source address can be used: %s", number.Error()).because(err)
	}
	return nil, unusable
}

// isOfSource reports whether an error of a connect is about its local address: this machine does not have it, it has no
// free port, or the target cannot be reached from it.
func isOfSource(err error) bool {
	for _, e := range []error{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// bindLate makes a TCP socket choose its port when it connects: it may then have a port that a connection to another
// target has.
func bindLate(_, _ string, c syscall.RawConn) error {
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT of linux/in.h, which package syscall lacks
	var err error
	set := func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1) }
	if controlled := c.Control(set); controlled != nil {
		return controlled
	}
	return os.NewSyscallError("setsockopt", err)
}
