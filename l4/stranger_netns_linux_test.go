//go:build netns

package l4_test

import (
	"encoding/binary"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A stranger is a host at the other end of a TUN device that speaks TCP one segment at a time, so that a test
// decides when each step of a handshake happens. It has the address 10.99.0.2, and we have 10.99.0.1.
type stranger struct {
	t    *testing.T
	file *os.File
	port uint16
	here map[uint16][]segment // that nobody has received yet, by their port
}

const (
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
)

// A segment is what a test needs to know of one.
type segment struct {
	from, to      uint16 // ports
	sequence, ack uint32
	flags         byte
	shut          bool // the sender's window is
	payload       string
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	request := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_TUN | unix.IFF_NO_PI}
	copy(request.name[:], "stranger")
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); e != 0 {
		t.Fatal(os.NewSyscallError("ioctl", e))
	}
	s := &stranger{t: t, file: os.NewFile(uintptr(fd), "tun"), port: 20000, here: make(map[uint16][]segment)}
	t.Cleanup(func() { s.file.Close() })
	ip(t, "address", "add", "10.99.0.1/24", "dev", "stranger")
	ip(t, "link", "set", "stranger", "up")
	return s
}

// send puts a segment on the wire.
func (s *stranger) send(g segment) {
	s.t.Helper()
	const ipBytes, tcpBytes = 20, 20
	p := make([]byte, ipBytes+tcpBytes+len(g.payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 99, 0, 2, 10, 99, 0, 1})
	binary.BigEndian.PutUint16(p[10:], checksum(0, p[:ipBytes]))
	tcp := p[ipBytes:]
	binary.BigEndian.PutUint16(tcp[0:], g.from)
	binary.BigEndian.PutUint16(tcp[2:], g.to)
	binary.BigEndian.PutUint32(tcp[4:], g.sequence)
	binary.BigEndian.PutUint32(tcp[8:], g.ack)
	tcp[12], tcp[13] = tcpBytes/4<<4, g.flags
	if !g.shut {
		binary.BigEndian.PutUint16(tcp[14:], 65535)
	}
	copy(tcp[tcpBytes:], g.payload)
	binary.BigEndian.PutUint16(tcp[16:], checksum(unix.IPPROTO_TCP+uint32(len(tcp)), p[12:20], tcp))
	if _, err := s.file.Write(p); err != nil {
		s.t.Fatal(err)
	}
}

// checksum is that of the Internet (RFC 1071).
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, p := range parts {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		if len(p)%2 == 1 {
			sum += uint32(p[len(p)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// receive returns the next segment to a port that wanted accepts.
func (s *stranger) receive(what string, to uint16, wanted func(segment) bool) segment {
	s.t.Helper()
	for len(s.here[to]) > 0 {
		g := s.here[to][0]
		s.here[to] = s.here[to][1:]
		if wanted(g) {
			return g
		}
	}
	p := make([]byte, 2000)
	if err := s.file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	for {
		n, err := s.file.Read(p)
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		if n < 40 || p[0] != 0x45 || p[9] != unix.IPPROTO_TCP {
			continue
		}
		tcp := p[20:n]
		g := segment{
			from: binary.BigEndian.Uint16(tcp), to: binary.BigEndian.Uint16(tcp[2:]),
			sequence: binary.BigEndian.Uint32(tcp[4:]), ack: binary.BigEndian.Uint32(tcp[8:]),
			flags: tcp[13], payload: string(tcp[tcp[12]>>4*4:]),
		}
		if g.to != to {
			s.here[g.to] = append(s.here[g.to], g)
		} else if wanted(g) {
			return g
		}
	}
}

// begin sends a SYN, and returns the answer to it: a SYN too, or a reset.
func (s *stranger) begin(to uint16) segment {
	s.t.Helper()
	s.port++
	s.send(segment{from: s.port, to: to, sequence: 1000, flags: flagSYN})
	return s.receive("answer to a SYN", s.port, func(g segment) bool { return g.flags&(flagSYN|flagRST) != 0 })
}

// finish ends the handshake that begin has begun, and asks a question.
func (s *stranger) finish(answer segment) {
	s.t.Helper()
	ack := segment{from: answer.to, to: answer.from, sequence: 1001, ack: answer.sequence + 1, flags: flagACK}
	s.send(ack)
	ack.flags |= flagPSH
	ack.payload = "x"
	s.send(ack)
}

// echoed tells whether the answer to finish's question is the same text or a reset.
func (s *stranger) echoed(answer segment) bool {
	s.t.Helper()
	g := s.receive("answer to a question", answer.to, func(g segment) bool {
		return g.flags&flagRST != 0 || g.payload != ""
	})
	s.send(segment{from: answer.to, to: answer.from, sequence: 1002, ack: g.sequence + 1, flags: flagRST})
	return g.payload == "x"
}
