package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// fillTimeout is how long a connect may take before it counts as swallowed; on loopback it normally takes microseconds.
// A slow connect would make the queue look full too early, so fill tries twice.
const fillTimeout = 200 * time.Millisecond

// A Swallower is a backend whose accept queue is full: the kernel drops each SYN sent to it, as a cut network would.
// Open makes it an ordinary backend.
type Swallower struct {
	*Backend

	fillers []net.Conn // fill the queue; closed by Open or at the end of the test
}

// Swallow starts a backend on 127.0.0.1 that swallows SYNs. After Open it serves with handle.
func Swallow(t testing.TB, handle Handler) *Swallower {
	t.Helper()
	return swallowOn(t, [4]byte{127, 0, 0, 1}, handle)
}

// SwallowEverywhere is Swallow on all IPv4 addresses of the machine, so that all of 127.0.0.0/8 are backends that
// swallow SYNs.
func SwallowEverywhere(t testing.TB, handle Handler) *Swallower {
	t.Helper()
	return swallowOn(t, [4]byte{}, handle)
}

func swallowOn(t testing.TB, addr [4]byte, handle Handler) *Swallower {
	t.Helper()
	l, err := listenBacklog(addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Swallower{Backend: newBackend(l, handle)}
	t.Cleanup(func() {
		s.Close()
		s.closeFillers()
	})
	s.fill(t)
	return s
}

// fill connects until two attempts in a row are swallowed.
func (s *Swallower) fill(t testing.TB) {
	t.Helper()
	for swallowed := 0; swallowed < 2; {
		c, err := net.DialTimeout("tcp", s.Address(), fillTimeout)
		var timeout net.Error
		switch {
		case err == nil:
			s.fillers = append(s.fillers, c)
			swallowed = 0
		case errors.As(err, &timeout) && timeout.Timeout():
			swallowed++
		default:
			t.Fatal(err)
		}
		if len(s.fillers) > 100 {
			t.Fatal("the accept queue does not fill")
		}
	}
}

// AwaitSYN waits until a connect is being swallowed.
func (s *Swallower) AwaitSYN(t testing.TB) {
	t.Helper()
	// proc_net(5): the remote address is the third field, in the host's byte order; the state follows, 02 is SYN_SENT
	wanted := fmt.Sprintf(" 0100007F:%04X 02 ", s.port())
	Eventually(t, "a connect to "+s.Address()+" is swallowed", func() error {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return err
		}
		if !bytes.Contains(table, []byte(wanted)) {
			return errors.New("no connection in state SYN_SENT")
		}
		return nil
	})
}

// Open empties the queue and serves from now on. A swallowed connect succeeds with its next SYN, one second after its
// first.
func (s *Swallower) Open(t testing.TB) {
	t.Helper()
	for range s.fillers {
		c, err := s.listener.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	s.closeFillers()
	s.serving.Go(s.accept)
}

func (s *Swallower) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *Swallower) closeFillers() {
	for _, c := range s.fillers {
		c.Close()
	}
	s.fillers = nil
}

// listenBacklog listens on a free port of an address with a given backlog, which net.Listen does not offer. The kernel
// queues one connection more than backlog.
func listenBacklog(addr [4]byte, backlog int) (*net.TCPListener, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close() // FileListener works on a duplicate
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: addr}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
