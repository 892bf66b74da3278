package sock

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A udpPair is a listening socket and a client's socket.
type udpPair struct {
	server, client int
	reader         *DatagramReader
	at             netip.AddrPort
}

func newUDPPair(t testing.TB, address string, o DatagramOptions) *udpPair {
	t.Helper()
	p := &udpPair{reader: NewDatagramReader(true)}
	p.server = mustFD(t)(ListenDatagram(netip.MustParseAddrPort(address), o, true))
	at, err := LocalAddr(p.server)
	if err != nil {
		t.Fatal(err)
	}
	p.at = at
	if at.Addr().IsUnspecified() {
		p.at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), at.Port())
	}
	fd, e := ConnectDatagram(p.at)
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { Close(fd) })
	p.client = fd
	return p
}

func mustFD(t testing.TB) func(int, error) int {
	return func(fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { Close(fd) })
		return fd
	}
}

// await waits until a socket can be read.
func await(t testing.TB, fd int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 20_000)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n == 0:
			t.Fatalf("nothing came within 20 seconds (%v)", err)
		default:
			return
		}
	}
}

// read reads that many datagrams and returns them, with trains cut, and the number of messages they arrived in.
func (p *udpPair) read(t testing.TB, count int) (all [][]byte, messages int) {
	t.Helper()
	for len(all) < count {
		await(t, p.server)
		n, e := p.reader.Read(p.server, 0, DatagramSlots)
		if e != 0 {
			t.Fatal(e)
		}
		messages += n
		for slot := range n {
			m := p.reader.Message(slot)
			if m.Truncated {
				t.Fatal("truncated")
			}
			all = append(all, cut(m)...)
		}
	}
	return all, messages
}

func cut(m Message) (all [][]byte) {
	size := m.Size
	if size == 0 {
		size = max(len(m.Bytes), 1)
	}
	for rest := m.Bytes; ; {
		n := min(size, len(rest))
		all = append(all, bytes.Clone(rest[:n]))
		if rest = rest[n:]; len(rest) == 0 {
			return all
		}
	}
}

// numbered returns n bytes that differ for each number.
func numbered(i, n int) []byte {
	b := make([]byte, n)
	for j := range b {
		b[j] = byte(i*31 + j)
	}
	return b
}

func sameDatagrams(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d datagrams, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("datagram %d is %d bytes and not the %d sent", i, len(got[i]), len(want[i]))
		}
	}
}

// TestTrains checks that datagrams of all sizes arrive as they were added, with and without trains at either end, with
// and without heads, and that trains save messages.
func TestTrains(t *testing.T) {
	var sizes []int
	for range 70 { // more than a train takes
		sizes = append(sizes, 1200)
	}
	for range 200 {
		sizes = append(sizes, 10)
	}
	sizes = append(sizes, 700, 1200, 1200, 0, 0, 1, 1, 1, 65507-10, 9000, 9000, 9000, 30_000, 30_000, 20_000)
	for _, gso := range []bool{false, true} {
		for _, gro := range []bool{false, true} {
			for _, head := range []string{"", "head"} {
				t.Run(fmt.Sprintf("gso %v gro %v head %q", gso, gro, head), func(t *testing.T) {
					p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{GRO: gro, ReceiveBuffer: 4 << 20})
					w := &DatagramWriter{Trains: gso}
					var want [][]byte
					for i, size := range sizes {
						if !w.Room() {
							if e := w.Send(p.client); e != 0 {
								t.Fatal(e)
							}
							w.Clear()
						}
						body := numbered(i, size)
						w.Add(nil, nil, []byte(head), body, true)
						want = append(want, append([]byte(head), body...))
					}
					if e := w.Send(p.client); e != 0 || !w.Empty() || w.Refused {
						t.Fatalf("%v, empty %v, refused %v", e, w.Empty(), w.Refused)
					}
					got, messages := p.read(t, len(want))
					sameDatagrams(t, got, want)
					if few := messages < len(want)/3; few != (gso && gro) {
						t.Errorf("%d datagrams came in %d messages", len(want), messages)
					}
				})
			}
		}
	}
}

// TestAddTrain checks that a train is sent on as it arrived, and is cut where it does not fit into a message.
func TestAddTrain(t *testing.T) {
	for _, size := range []int{1, 500, 1472, 33_000} {
		p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{GRO: true, ReceiveBuffer: 4 << 20})
		all := numbered(size, min(100*size+size/2+1, 65_000))
		w := &DatagramWriter{Trains: true}
		for rest := all; len(rest) > 0; {
			n := w.AddTrain(nil, nil, rest, size, false)
			rest = rest[n:]
		}
		if e := w.Send(p.client); e != 0 || w.Refused {
			t.Fatal(e, w.Refused)
		}
		want := cut(Message{Bytes: all, Size: size})
		got, _ := p.read(t, len(want))
		sameDatagrams(t, got, want)
	}
}

// TestRefusedTrain checks that datagrams are sent one by one if the kernel refuses a train, here because the socket
// sends without a checksum. Left and Gone are right throughout.
func TestRefusedTrain(t *testing.T) {
	for _, head := range []string{"", "head"} {
		p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{ReceiveBuffer: 4 << 20})
		if err := setInt(p.client, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
		w := &DatagramWriter{Trains: true}
		var want [][]byte
		for i := range 20 {
			body := numbered(i, 100-i/19)
			w.Add(nil, nil, []byte(head), body, true)
			want = append(want, append([]byte(head), body...))
		}
		w.Add(nil, nil, nil, nil, false)
		want = append(want, nil)
		var left [][]byte
		w.Left(func(head, body []byte) { left = append(left, append(bytes.Clone(head), body...)) })
		sameDatagrams(t, left, want)
		if e := w.Send(p.client); e != 0 || !w.Refused || !w.Empty() || w.Gone() != len(want) {
			t.Fatalf("%v, refused %v, empty %v, %d gone", e, w.Refused, w.Empty(), w.Gone())
		}
		got, _ := p.read(t, len(want))
		sameDatagrams(t, got, want)
		w.Left(func(_, _ []byte) { t.Error("something is left") })
	}
}

// TestSkip checks that a datagram that cannot be sent does not hold back the others.
func TestSkip(t *testing.T) {
	p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{})
	w := new(DatagramWriter)
	long := make([]byte, 65508)
	for _, d := range [][]byte{[]byte("a"), long, []byte("b")} {
		w.Add(nil, nil, nil, d, false)
	}
	// sendmmsg reports the error of the second datagram only when it is the first one left
	if e := w.Send(p.client); e != TooLong || w.Gone() != 1 {
		t.Fatalf("%v with %d gone, want %v with 1", e, w.Gone(), TooLong)
	}
	if n := w.Skip(); n != 1 {
		t.Fatalf("skipped %d", n)
	}
	if e := w.Send(p.client); e != 0 {
		t.Fatal(e)
	}
	got, _ := p.read(t, 2)
	sameDatagrams(t, got, [][]byte{[]byte("a"), []byte("b")})
}

// TestSkipTrain checks that Skip omits a whole train that cannot be sent for another reason than being a train.
func TestSkipTrain(t *testing.T) {
	w := &DatagramWriter{Trains: true}
	for range 3 {
		w.Add(nil, nil, nil, []byte("x"), true)
	}
	if e := w.Send(-1); e != syscall.EBADF || w.Empty() {
		t.Fatalf("%v, empty %v", e, w.Empty())
	}
	if n := w.Skip(); n != 3 || !w.Empty() {
		t.Errorf("skipped %d, empty %v", n, w.Empty())
	}
}

// TestLocal checks that a wildcard socket learns a datagram's destination address, and answers from it.
func TestLocal(t *testing.T) {
	for _, tc := range []struct{ listen, ask string }{
		{"0.0.0.0:0", "127.0.0.7"},
		{"[::]:0", "127.0.0.9"},
		{"[::]:0", "::1"},
	} {
		t.Run(tc.listen+" "+tc.ask, func(t *testing.T) {
			fd := mustFD(t)(ListenDatagram(netip.MustParseAddrPort(tc.listen),
				DatagramOptions{Named: true, DualStack: true}, true))
			at, err := LocalAddr(fd)
			if err != nil {
				t.Fatal(err)
			}
			ask := netip.AddrPortFrom(netip.MustParseAddr(tc.ask), at.Port())
			client, e := ConnectDatagram(ask)
			if e != 0 {
				t.Fatal(e)
			}
			defer Close(client)
			if e := SendDatagram(client, []byte("which")); e != 0 {
				t.Fatal(e)
			}
			await(t, fd)
			r := NewDatagramReader(true)
			if n, e := r.Read(fd, 0, 4); n != 1 || e != 0 {
				t.Fatal(n, e)
			}
			m := r.Message(0)
			if got := netip.AddrFrom16(m.Local.Addr16()).Unmap(); got != ask.Addr() {
				t.Errorf("sent to %s, want %s", got, ask.Addr())
			}
			from, err := LocalAddr(client)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Peer(0).AddrPort(); got != from || r.Peer(0).Port() != from.Port() {
				t.Errorf("came from %s, want %s", got, from)
			}
			w := &DatagramWriter{Trains: true}
			for range 2 { // a train, with both control messages
				w.Add(r.Peer(0), &m.Local, nil, []byte("this"), true)
			}
			if e := w.Send(fd); e != 0 {
				t.Fatal(e)
			}
			await(t, client) // it is connected, so it receives from that address only
			answers := NewDatagramReader(false)
			if n, e := answers.Read(client, 0, 4); n != 2 || e != 0 || string(answers.Message(1).Bytes) != "this" {
				t.Error(n, e)
			}
		})
	}
}

// TestReadBatch checks that empty datagrams are datagrams, that messages go into the right slots, and that fewer than
// count mean that there are no more.
func TestReadBatch(t *testing.T) {
	p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{})
	for _, s := range []string{"", "b", ""} {
		if e := SendDatagram(p.client, []byte(s)); e != 0 {
			t.Fatal(e)
		}
	}
	await(t, p.server)
	if n, e := p.reader.Read(p.server, 7, 5); n != 3 || e != 0 {
		t.Fatal(n, e)
	}
	for i, want := range []string{"", "b", ""} {
		if got := p.reader.Message(7 + i); string(got.Bytes) != want || got.Size != 0 {
			t.Errorf("%q of %d, want %q", got.Bytes, got.Size, want)
		}
	}
	if n, e := p.reader.Read(p.server, 0, 5); n != 0 || e != Again {
		t.Error(n, e)
	}
}

// TestLost checks that a socket reports how many datagrams its buffer had no room for.
func TestLost(t *testing.T) {
	p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{ReceiveBuffer: 8 << 10})
	const sent = 100
	for range sent {
		if e := SendDatagram(p.client, make([]byte, 1000)); e != 0 {
			t.Fatal(e)
		}
	}
	got, _ := p.read(t, 1)
	if e := SendDatagram(p.client, []byte("after")); e != 0 {
		t.Fatal(e)
	}
	p.read(t, 1)
	if m := p.reader.Message(0); string(m.Bytes) != "after" || int(m.Lost)+len(got) != sent {
		t.Errorf("%q: %d lost and %d read of %d", m.Bytes, m.Lost, len(got), sent)
	}
}

// TestSteerBySource checks that all flows of a client reach one socket, and that the clients are spread over the
// sockets.
func TestSteerBySource(t *testing.T) {
	const sockets = 4
	for _, network := range []string{"127.0.0.1:0", "[::]:0"} {
		at := netip.MustParseAddrPort(network)
		var fds []int
		for i := range sockets {
			fd := mustFD(t)(ListenDatagram(at, DatagramOptions{DualStack: true}, i == 0))
			local, err := LocalAddr(fd)
			if err != nil {
				t.Fatal(err)
			}
			at = netip.AddrPortFrom(at.Addr(), local.Port())
			fds = append(fds, fd)
		}
		spread := func() (perClient map[netip.Addr]int, used int) {
			for client := range 20 {
				for range 8 {
					fd := mustFD(t)(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
					if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1,
						byte(client + 1)}}); err != nil {
						t.Fatal(err)
					}
					if err := unix.Sendto(fd, []byte("x"), 0,
						&unix.SockaddrInet4{Port: int(at.Port()), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
						t.Fatal(err)
					}
				}
			}
			perClient = make(map[netip.Addr]int)
			r := NewDatagramReader(true)
			for _, fd := range fds {
				here := make(map[netip.Addr]bool)
				for {
					n, e := r.Read(fd, 0, DatagramSlots)
					if e != 0 {
						break
					}
					for slot := range n {
						here[r.Peer(slot).AddrPort().Addr()] = true
					}
				}
				for a := range here {
					perClient[a]++
				}
				if len(here) > 0 {
					used++
				}
			}
			return perClient, used
		}
		many := func(perClient map[netip.Addr]int) (n int) {
			for _, sockets := range perClient {
				if sockets > 1 {
					n++
				}
			}
			return n
		}
		if per, _ := spread(); many(per) == 0 {
			t.Errorf("%s: no client's flows are spread as usual", network)
		}
		if err := SteerBySource(fds[1], sockets); err != nil {
			t.Fatal(err)
		}
		if per, used := spread(); len(per) != 20 || many(per) != 0 || used < 2 {
			t.Errorf("%s: %d of %d clients are on several sockets, %d sockets are used", network, many(per), len(per),
				used)
		}
		SteerAsUsual(fds[0])
		if per, _ := spread(); many(per) == 0 {
			t.Errorf("%s: still steered", network)
		}
	}
}

// TestListenDatagramTwice checks that another process cannot take the address silently, and that our own other sockets
// can share it.
func TestListenDatagramTwice(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:0")
	first := mustFD(t)(ListenDatagram(at, DatagramOptions{}, true))
	at, err := LocalAddr(first)
	if err != nil {
		t.Fatal(err)
	}
	if fd, err := ListenDatagram(at, DatagramOptions{}, true); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another got %d, %v", fd, err)
	}
	mustFD(t)(ListenDatagram(at, DatagramOptions{}, false))
}

// TestDatagramError checks that an ICMP error is found, even if sendmmsg already took it off the socket.
func TestDatagramError(t *testing.T) {
	p := newUDPPair(t, "127.0.0.1:0", DatagramOptions{})
	at, err := LocalAddr(p.server)
	if err != nil {
		t.Fatal(err)
	}
	closed := mustFD(t)(ListenDatagram(netip.AddrPortFrom(at.Addr(), 0), DatagramOptions{}, true))
	gone, err := LocalAddr(closed)
	if err != nil {
		t.Fatal(err)
	}
	fd, e := ConnectDatagram(gone)
	if e != 0 {
		t.Fatal(e)
	}
	defer Close(fd)
	if e := DatagramError(fd); e.Errno != 0 {
		t.Errorf("%v before anything was sent", e)
	}
	unix.Shutdown(closed, unix.SHUT_RD) // does nothing to a UDP socket; its port closes with it
	if err := unix.Dup2(p.server, closed); err != nil {
		t.Fatal(err)
	}
	w := new(DatagramWriter)
	for range 3 {
		w.Add(nil, nil, nil, []byte("lost"), false)
	}
	for !w.Empty() {
		if e := w.Send(fd); e != 0 && !Unreachable(e) {
			t.Fatal(e)
		}
	}
	if e := DatagramError(fd); e != (Report{ConnRefused, true}) {
		t.Errorf("%v, want %v", e, ConnRefused)
	}
	if e := DatagramError(fd); e.Errno != 0 {
		t.Errorf("%v once it was taken", e)
	}
}

// TestInheritDatagram checks that descriptors of other kinds are refused, and that a UDP socket is accepted.
func TestInheritDatagram(t *testing.T) {
	stream := mustFD(t)(Listen(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{Backlog: 1}, true))
	if _, err := InheritDatagram(stream); !errors.Is(err, ErrNotDatagram) {
		t.Errorf("a TCP socket: %v", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer Close(pipe[0])
	defer Close(pipe[1])
	if _, err := InheritDatagram(pipe[0]); !errors.Is(err, ErrNotDatagram) {
		t.Errorf("a pipe: %v", err)
	}
	fd := mustFD(t)(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := InheritDatagram(fd)
	if err != nil || at.Port() == 0 || at.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%s, %v", at, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// TestDatagramsAllocateNothing checks that reading and sending a batch does not allocate.
func TestDatagramsAllocateNothing(t *testing.T) {
	p := newUDPPair(t, "0.0.0.0:0", DatagramOptions{GRO: true, Named: true})
	w := &DatagramWriter{Trains: true}
	payload := make([]byte, 100)
	if n := testing.AllocsPerRun(200, func() {
		w.Clear()
		for range 4 {
			w.Add(nil, nil, nil, payload, true)
		}
		if e := w.Send(p.client); e != 0 {
			t.Fatal(e)
		}
		n, e := p.reader.Read(p.server, 0, DatagramSlots)
		if e != 0 {
			t.Fatal(e)
		}
		w.Clear()
		for slot := range n {
			m := p.reader.Message(slot)
			w.AddTrain(p.reader.Peer(slot), &m.Local, m.Bytes, m.Size, false)
		}
		if e := w.Send(p.server); e != 0 {
			t.Fatal(e)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
