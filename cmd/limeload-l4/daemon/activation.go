package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/limeload/limeload-l4/conf"
)

// firstInherited is the first descriptor that a service manager passes on (SD_LISTEN_FDS_START of sd_listen_fds(3)).
const firstInherited = 3

// An inheritedSocket is a listening TCP socket that the service manager opened for a listener, or several of one
// address. Whoever takes it over closes fds.
type inheritedSocket struct {
	address   netip.AddrPort
	dualStack bool  // address is IPv6, and IPv4 clients are accepted too
	fds       []int // all with the same address, by ReusePort=; close-on-exec and non-blocking
}

// inheritedSockets takes over the sockets that the service manager opened, by the names it gave them
// (FileDescriptorName=), and removes its variables from the environment. It returns none unless the manager meant this
// process. It must be called once, before any program is started, which would inherit the sockets too. The error names
// every unusable socket; all of them are closed then.
//
// It does not use the library's activation package, which takes a malformed LISTEN_FDS for no sockets, does not check
// whether the sockets listen, and wraps them in files that close them when they are garbage-collected.
func inheritedSockets() (map[string][]inheritedSocket, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // a valid name: it cannot fail
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.ParseUint(fds, 10, 16) // a .socket unit has no more
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS: found %q; needs the number of sockets handed over", fds)
	}
	named := strings.Split(names, ":")
	if names == "" {
		named = make([]string, n)
	}
	if len(named) != int(n) {
		return nil, fmt.Errorf("LISTEN_FDNAMES: found %q; needs a name for each of the %d sockets handed over",
			names, n)
	}
	return takeSockets(firstInherited, named)
}

// takeSockets takes over the descriptors from first on, one for each name. Those of one name may have several
// addresses.
func takeSockets(first int, names []string) (map[string][]inheritedSocket, error) {
	sockets := make(map[string][]inheritedSocket)
	var mistakes []error
	for i, name := range names {
		fd := first + i
		syscall.CloseOnExec(fd)
		s, err := inspectSocket(fd)
		if err == nil {
			err = os.NewSyscallError("fcntl", syscall.SetNonblock(fd, true))
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("inherited socket %d, FileDescriptorName=%s: %w", fd, name, err))
			continue
		}
		k := slices.IndexFunc(sockets[name], func(before inheritedSocket) bool {
			return s.address == before.address && s.dualStack == before.dualStack
		})
		if k < 0 {
			sockets[name] = append(sockets[name], s)
		} else {
			sockets[name][k].fds = append(sockets[name][k].fds, fd)
		}
	}
	if len(mistakes) > 0 {
		for i := range names {
			_ = syscall.Close(first + i) // it may not be open at all
		}
		return nil, errors.Join(mistakes...)
	}
	return sockets, nil
}

// inspectSocket describes a descriptor. It is an error if that is not a listening TCP socket.
func inspectSocket(fd int) (inheritedSocket, error) {
	s := inheritedSocket{fds: []int{fd}}
	protocol, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_PROTOCOL)
	if err != nil {
		return s, os.NewSyscallError("getsockopt", err)
	}
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return s, os.NewSyscallError("getsockopt", err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return s, os.NewSyscallError("getsockname", err)
	}
	switch a := address.(type) {
	case *syscall.SockaddrInet4:
		s.address = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		only, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY)
		if err != nil {
			return s, os.NewSyscallError("getsockopt", err)
		}
		s.address, s.dualStack = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), only == 0
	default:
		return s, errors.New("neither IPv4 nor IPv6; ListenStream= needs a port, or an address and a port")
	}
	if kind != syscall.SOCK_STREAM || protocol != syscall.IPPROTO_TCP {
		return s, errors.New("not TCP; needs ListenStream= and no SocketProtocol=")
	}
	listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil {
		return s, os.NewSyscallError("getsockopt", err)
	}
	if listening == 0 {
		return s, errors.New("not listening; needs Accept=no")
	}
	return s, nil
}

// checkInherited returns an error for each socket that has no listener, or that listens elsewhere than its listener.
// cfg must be resolved.
func checkInherited(cfg *conf.Config, sockets map[string][]inheritedSocket) error {
	listeners := cfg.Listeners
	names := make([]string, len(listeners))
	for i, l := range listeners {
		names[i] = strconv.Quote(l.Name)
	}
	var mistakes []error
	for _, name := range slices.Sorted(maps.Keys(sockets)) {
		i := slices.IndexFunc(listeners, func(l conf.Listener) bool { return l.Name == name })
		if i < 0 {
			for _, s := range sockets[name] {
				mistakes = append(mistakes,
					fmt.Errorf("inherited socket %s, FileDescriptorName=%s: no listener has that name; needs one of %s",
						s.where(), name, strings.Join(names, ", ")))
			}
			continue
		}
		_, rest := assignSockets(&listeners[i], sockets[name])
		for _, s := range rest {
			mistakes = append(mistakes,
				fmt.Errorf("inherited socket %s, FileDescriptorName=%s: listener.%s.address is %s; "+
					"needs a ListenStream= that fits", s.where(), name, name, addressesQuoted(&listeners[i])))
		}
	}
	return errors.Join(mistakes...)
}

// assignSockets returns the inherited sockets for the addresses of a listener of TCP, by the index of its Binds, and
// those that are left over: they fit no address, or one that has other sockets already.
func assignSockets(l *conf.Listener, sockets []inheritedSocket) (of map[int]inheritedSocket, rest []inheritedSocket) {
	of = make(map[int]inheritedSocket, len(sockets))
	for _, s := range sockets {
		k := -1
		if slices.Contains(l.Protocols(), "tcp") {
			k = slices.IndexFunc(l.Binds, func(b conf.Bind) bool { return s.fits(&b) })
		}
		if _, taken := of[k]; k < 0 || taken {
			rest = append(rest, s)
			continue
		}
		of[k] = s
	}
	return of, rest
}

// addressesQuoted returns the addresses of a listener as in the file, each in quotes.
func addressesQuoted(l *conf.Listener) string {
	texts := make([]string, len(l.Address))
	for i, text := range l.Address {
		texts[i] = strconv.Quote(text)
	}
	return strings.Join(texts, ", ")
}

// where returns the address, in words that distinguish [::] for IPv6 alone from [::] for both families.
func (s inheritedSocket) where() string {
	if !s.address.Addr().Is6() || !s.address.Addr().IsUnspecified() {
		return s.address.String()
	}
	if s.dualStack {
		return s.address.String() + " (IPv6 and IPv4)"
	}
	return s.address.String() + " (IPv6 alone)"
}

// fits reports whether the socket listens at an address of a listener.
func (s inheritedSocket) fits(l *conf.Bind) bool {
	if l.Path != "" || s.address.Port() != l.Port && l.Port != 0 {
		return false
	}
	at, wanted := s.address.Addr(), l.Addr.Addr().WithZone("") // the zone of a socket is a number, that of l a name
	switch {
	case !wanted.IsUnspecified() || !wanted.Is6():
		return at == wanted
	case l.DualStack && at == netip.IPv4Unspecified():
		return true // without IPv6 in the kernel, systemd and this program listen on IPv4 alone
	}
	return at == wanted && s.dualStack == l.DualStack
}
