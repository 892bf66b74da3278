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

// firstInherited is the first descriptor that a service manager hands over (SD_LISTEN_FDS_START of sd_listen_fds(3)).
const firstInherited = 3

// An inheritedSocket is a listening TCP socket that the service manager opened for a listener. Whoever takes it over closes fds.
type inheritedSocket struct {
	address   netip.AddrPort
	dualStack bool  // address is IPv6, and IPv4 clients are taken too
	fds       []int // all of one address, by ReusePort=; close-on-exec and non-blocking
}

// inheritedSockets takes over the sockets that the service manager opened, by the names it gave them (FileDescriptorName=), and
// takes what tells of them out of the environment. There are none unless the manager meant this process. It must be called once,
// before anything else starts a program: that would inherit them, too. An error names each socket that is of no use; then all are closed.
//
// The library's activation package is not used: it takes a malformed LISTEN_FDS for no sockets, does not look whether they
// listen, and wraps them in files that close them when the collector finds them.
func inheritedSockets() (map[string]inheritedSocket, error) {
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
		return nil, fmt.Errorf("LISTEN_FDNAMES: found %q; needs a name for each of the %d sockets handed over", names, n)
	}
	return takeSockets(firstInherited, named)
}

// takeSockets takes over the sockets from descriptor first on, one for each name.
func takeSockets(first int, names []string) (map[string]inheritedSocket, error) {
	sockets := make(map[string]inheritedSocket)
	var mistakes []error
	for i, name := range names {
		fd := first + i
		syscall.CloseOnExec(fd)
		s, err := inspectSocket(fd)
		if err == nil {
			err = os.NewSyscallError("fcntl", syscall.SetNonblock(fd, true))
		}
		if before, more := sockets[name]; more && err == nil {
			if s.address != before.address || s.dualStack != before.dualStack {
				err = fmt.Errorf("listens on %s, and another of that name on %s; needs one address, or two names", s.where(), before.where())
			}
			s.fds = append(before.fds, fd)
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("inherited socket %d, FileDescriptorName=%s: %w", fd, name, err))
			continue
		}
		sockets[name] = s
	}
	if len(mistakes) > 0 {
		for i := range names {
			_ = syscall.Close(first + i) // it may not even be open
		}
		return nil, errors.Join(mistakes...)
	}
	return sockets, nil
}

// inspectSocket says what the descriptor is, if it is a listening TCP socket.
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

// checkInherited says which sockets are not those of a listener, or listen elsewhere. The configuration must be resolved.
func checkInherited(cfg *conf.Config, sockets map[string]inheritedSocket) error {
	listeners := cfg.Listeners
	names := make([]string, len(listeners))
	for i, l := range listeners {
		names[i] = strconv.Quote(l.Name)
	}
	var mistakes []error
	for _, name := range slices.Sorted(maps.Keys(sockets)) {
		s := sockets[name]
		i := slices.IndexFunc(listeners, func(l conf.Listener) bool { return l.Name == name })
		switch {
		case i < 0:
			mistakes = append(mistakes, fmt.Errorf("inherited socket %s, FileDescriptorName=%s: no listener has that name; needs one of %s",
				s.where(), name, strings.Join(names, ", ")))
		case !s.fits(&listeners[i]):
			mistakes = append(mistakes, fmt.Errorf("inherited socket %s, FileDescriptorName=%s: listener.%s.address is %q; needs a ListenStream= that fits",
				s.where(), name, name, listeners[i].Address))
		}
	}
	return errors.Join(mistakes...)
}

// where is the address in words that tell [::] from [::].
func (s inheritedSocket) where() string {
	if !s.address.Addr().Is6() || !s.address.Addr().IsUnspecified() {
		return s.address.String()
	}
	if s.dualStack {
		return s.address.String() + " (IPv6 and IPv4)"
	}
	return s.address.String() + " (IPv6 alone)"
}

// fits tells whether the socket listens where l does.
func (s inheritedSocket) fits(l *conf.Listener) bool {
	if s.address.Port() != l.Bind.Port() && l.Bind.Port() != 0 {
		return false
	}
	at, wanted := s.address.Addr(), l.Bind.Addr().WithZone("") // the socket's is a number, l's a name
	switch {
	case !wanted.IsUnspecified() || !wanted.Is6():
		return at == wanted
	case l.DualStack && at == netip.IPv4Unspecified():
		return true // all that systemd gets, and we, where the kernel has no IPv6
	}
	return at == wanted && s.dualStack == l.DualStack
}
