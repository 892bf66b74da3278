package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/limeload/limeload-l4/pool"
)

// checkElsewhere returns an error that names the backends on this machine's own addresses, and on link-local addresses,
// such as a cloud's metadata service. Otherwise anybody who can answer a DNS question could expose services meant for
// this machine only, such as the control API, to every client.
//
// Backends from a file are not checked: its owner decides what a backend is, like the owner of the configuration.
func checkElsewhere(backends []pool.Spec) error {
	var here []string
	known := make(map[netip.Addr]bool) // whether it is here; an SRV answer may have one address with many ports
	for _, b := range backends {
		ip := b.Addr.Addr()
		is, looked := known[ip]
		if !looked {
			var err error
			if is, err = isHere(ip); err != nil {
				return fmt.Errorf("find out whether %s is an address of this machine: %w", ip, err)
			}
			known[ip] = is
		}
		if is {
			here = append(here, b.Addr.String())
		}
	}
	if len(here) == 0 {
		return nil
	}
	return errors.New(someOf(here) + "; allow_loopback = true allows them")
}

// isHere reports whether an address is this machine's own or link-local.
//
// It asks the kernel: for a destination that is its own address, or has a route of type local, the kernel chooses that
// same address as the source. This sends nothing, and works in a service that may not read interfaces (AF_NETLINK).
func isHere(ip netip.Addr) (bool, error) {
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return true, nil
	}
	const discard = 9 // any port will do
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, discard)))
	if err != nil {
		return false, ours(err)
	}
	defer c.Close()
	from, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && from.AddrPort().Addr().Unmap() == ip, nil
}

// ours returns the cause if err says that this process or machine has run out of a resource, and nil if err is about
// the address, such as a missing route.
func ours(err error) error {
	for _, want := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, want) {
			return want
		}
	}
	return nil
}

// someOf lists the first few of perhaps thousands of texts.
func someOf(texts []string) string {
	const shown = 5
	if len(texts) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:shown], ", "), len(texts)-shown)
	}
	return strings.Join(texts, ", ")
}
