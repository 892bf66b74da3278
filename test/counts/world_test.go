package counts

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A world is what one run of a case has around the balancer: the address to connect to, and the backend. The test is
// client and backend at once, so that it decides the order of all steps.
type world struct {
	t      testing.TB
	listen string
	stream *net.TCPListener // the backend
	packet *net.UDPConn     // the backend by UDP, on the same port
	files  certificate
	settle func() // waits until the balancer has nothing to do; nothing if calls are not counted
	number int    // of questions so far
}

func newWorld(t testing.TB, files certificate) *world {
	t.Helper()
	w := &world{t: t, listen: harness.FreeAddress(t), files: files, settle: func() {}}
	address := netip.MustParseAddrPort(harness.FreeAddress(t))
	var err error
	w.stream, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
	check(t, err)
	t.Cleanup(func() { w.stream.Close() })
	w.packet, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	check(t, err)
	t.Cleanup(func() { w.packet.Close() })
	check(t, w.packet.SetDeadline(time.Now().Add(2*harness.Patience)))
	return w
}

// fill returns a configuration in which the words in capitals are replaced.
func (w *world) fill(config string) string {
	return strings.NewReplacer("LISTEN", w.listen, "BACKEND", w.stream.Addr().String(), "CERTIFICATE", w.files.cert,
		"KEY", w.files.key, "BOTH", w.files.both).Replace(config)
}

// dial connects a client.
func (w *world) dial() *net.TCPConn {
	w.t.Helper()
	c, err := net.DialTimeout("tcp", w.listen, harness.Patience)
	check(w.t, err)
	w.settle()
	return w.bounded(c.(*net.TCPConn))
}

// accept returns the backend's end of a session.
func (w *world) accept() *net.TCPConn {
	w.t.Helper()
	check(w.t, w.stream.SetDeadline(time.Now().Add(harness.Patience)))
	c, err := w.stream.AcceptTCP()
	check(w.t, err)
	w.settle()
	return w.bounded(c)
}

// bounded makes what the test does with c fail in the end, and closes it after the test.
func (w *world) bounded(c *net.TCPConn) *net.TCPConn {
	w.t.Helper()
	check(w.t, c.SetDeadline(time.Now().Add(2*harness.Patience)))
	w.t.Cleanup(func() { c.Close() })
	return c
}

// move sends bytes from one end of a session to the other.
func (w *world) move(from io.Writer, to io.Reader, bytes int) {
	w.t.Helper()
	_, err := from.Write(make([]byte, bytes))
	check(w.t, err)
	_, err = io.ReadFull(to, make([]byte, bytes))
	check(w.t, err)
	w.settle()
}

// pour is move for more than the kernel's buffers hold.
func (w *world) pour(from io.Writer, to io.Reader, bytes int) {
	w.t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, bytes))
		sent <- err
	}()
	_, err := io.ReadFull(to, make([]byte, bytes))
	check(w.t, errors.Join(err, <-sent))
	w.settle()
}

// end closes the client's end of a session, and the backend's after it.
func (w *world) end(client io.Closer, backend *net.TCPConn) {
	w.t.Helper()
	check(w.t, client.Close())
	if n, err := backend.Read(make([]byte, 1)); err != io.EOF {
		w.t.Fatalf("the backend reads %d bytes and %v, expected the end", n, err)
	}
	w.settle()
	check(w.t, backend.Close())
	w.settle()
}

// refused connects a client that the balancer must refuse.
func (w *world) refused() {
	w.t.Helper()
	c, err := net.DialTimeout("tcp", w.listen, harness.Patience)
	if err == nil {
		check(w.t, c.SetDeadline(time.Now().Add(harness.Patience)))
		var n int
		if n, err = c.Read(make([]byte, 1)); err == nil {
			w.t.Fatalf("the client reads %d bytes, expected to be refused", n)
		}
		c.Close()
	}
	if err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatalf("the client sees %v, expected the end of its connection", err)
	}
	w.settle()
}

// ignored connects a client that the balancer must refuse without a word. It does not wait for what never comes. On
// loopback it may find itself reset: the balancer has forgotten the connection, and the kernel says so.
func (w *world) ignored() {
	w.t.Helper()
	c, err := net.DialTimeout("tcp", w.listen, harness.Patience)
	if err == nil {
		w.settle()
		err = c.Close()
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatalf("the client sees %v, expected a connection", err)
	}
	w.settle()
}

// client makes a UDP client.
func (w *world) client() *net.UDPConn {
	w.t.Helper()
	return harness.DialUDP(w.t, w.listen)
}

// ask sends a datagram through the balancer, and an answer back. answer makes the answer.
func (w *world) ask(c *net.UDPConn, datagram []byte, answer func([]byte) []byte) {
	w.t.Helper()
	_, err := c.Write(datagram)
	check(w.t, err)
	buffer := make([]byte, 1<<16)
	n, from, err := w.packet.ReadFromUDPAddrPort(buffer)
	check(w.t, err)
	w.settle()
	_, err = w.packet.WriteToUDPAddrPort(answer(buffer[:n]), from)
	check(w.t, err)
	w.hear(c, 1)
}

// hear reads the answers of the balancer.
func (w *world) hear(c *net.UDPConn, datagrams int) {
	w.t.Helper()
	for range datagrams {
		_, err := c.Read(make([]byte, 1<<16))
		check(w.t, err)
	}
	w.settle()
}

// echoed returns the datagram as the answer to itself.
func echoed(datagram []byte) []byte { return datagram }

// A train is as many datagrams of the same size as QUIC sends with one system call.
const (
	trainDatagrams = 16
	trainBytes     = 1200
)

// segment makes a socket send longer datagrams as a train (UDP_SEGMENT, linux/udp.h).
func (w *world) segment(c *net.UDPConn) {
	w.t.Helper()
	const solUDP, udpSegment = 17, 103
	raw, err := c.SyscallConn()
	check(w.t, err)
	check(w.t, errors.Join(raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), solUDP, udpSegment, trainBytes)
	}), err))
}

// exchangeTrains sends a train through the balancer, and one back.
func (w *world) exchangeTrains(c *net.UDPConn) {
	w.t.Helper()
	train := make([]byte, trainDatagrams*trainBytes)
	_, err := c.Write(train)
	check(w.t, err)
	var from netip.AddrPort
	for range trainDatagrams {
		_, from, err = w.packet.ReadFromUDPAddrPort(make([]byte, 1<<16))
		check(w.t, err)
	}
	w.settle()
	_, err = w.packet.WriteToUDPAddrPort(train, from)
	check(w.t, err)
	w.hear(c, trainDatagrams)
}

// awaitListening waits until the balancer listens, without connecting: the backend would see that.
func (w *world) awaitListening(p *harness.Process) {
	w.t.Helper()
	port := netip.MustParseAddrPort(w.listen).Port()
	own := fmt.Sprintf(":%04X 00000000:0000 ", port) // of a socket without a peer (proc_pid_net(5))
	harness.Eventually(w.t, w.listen+" is listened at", func() error {
		select {
		case <-p.Done():
			w.t.Fatal("the balancer has ended")
		default:
		}
		for _, file := range []string{"/proc/net/tcp", "/proc/net/udp"} {
			sockets, err := os.ReadFile(file)
			if err != nil || strings.Contains(string(sockets), own) {
				return err
			}
		}
		return errors.New("there is no such socket")
	})
}
