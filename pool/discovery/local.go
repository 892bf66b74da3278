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

// checkElsewhere names the backends that are not elsewhere: this machine's own addresses, and those of one link alone, where
// the cloud's metadata service is. Whoever can answer a DNS question would otherwise open to every client what listens here
// for this machine alone, such as the control API.
//
// A file's backends are not looked at so: who writes it says what is a backend, as who writes the configuration.
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

// isHere reports whether what is sent to an address stays on this machine, or on one link.
//
// The kernel sends from the very address that it sends to if that is its own, or one that it takes for its own by a route of
// type local. To ask it needs no right to read the interfaces, which the service does not have (AF_NETLINK), and no datagram.
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

// ours returns err if it says that this process or machine has too little of something, and nil if it is about the address,
// such as that there is no way to it.
func ours(err error) error {
	for _, want := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, want) {
			return want
		}
	}
	return nil
}

// someOf lists texts, of which there may be thousands.
func someOf(texts []string) string {
	const shown = 5
	if len(texts) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:shown], ", "), len(texts)-shown)
	}
	return strings.Join(texts, ", ")
}
