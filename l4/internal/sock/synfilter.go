package sock

import (
	"encoding/binary"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxSYNSources is how many prefixes DropSYNs takes.
const MaxSYNSources = 64

// DropSYNs makes the kernel drop the connection requests that a listening TCP socket gets from these prefixes, at most
// MaxSYNSources, in place of those of the call before. To the clients it is as if nobody was there. Packets of
// connections that exist pass: the connections that are accepted from the socket inherit its filter (socket(7),
// SO_ATTACH_FILTER). Without prefixes the filter is taken away. A socket of Multipath TCP takes no filter.
func DropSYNs(fd int, from []netip.Prefix) error {
	if len(from) == 0 {
		var unused int32
		setsockopt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, unsafe.Pointer(&unused), unsafe.Sizeof(unused))
		return nil
	}
	filter := synFilter(from)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if e := setsockopt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, unsafe.Pointer(&program),
		unsafe.Sizeof(program)); e != 0 {
		return os.NewSyscallError("setsockopt", e)
	}
	return nil
}

// synFilter is a program that drops what DropSYNs says: the whole length of a packet is what passes of it. For a TCP
// socket a packet begins with the TCP header.
func synFilter(from []netip.Prefix) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_ABS
		and   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K

		flags, syn, ack = 13, 0x02, 0x10 // RFC 9293, 3.1
	)
	pass, drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}, unix.SockFilter{Code: unix.BPF_RET}
	filter := []unix.SockFilter{
		{Code: load | unix.BPF_B, K: flags},
		{Code: and, K: syn | ack},
		{Code: equal, K: syn, Jt: 1},
		pass,
	}
	for _, p := range from {
		source, version := uint32(networkHeader+8), uint32(6)
		if p.Addr().Is4() {
			source, version = networkHeader+12, 4
		}
		words := p.Addr().AsSlice()
		steps := []unix.SockFilter{
			{Code: load | unix.BPF_B, K: networkHeader},
			{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4},
			{Code: equal, K: version},
		}
		for at := 0; at < p.Bits(); at += 32 {
			mask := ^uint32(0)
			if bits := p.Bits() - at; bits < 32 {
				mask <<= 32 - bits
			}
			steps = append(steps,
				unix.SockFilter{Code: load | unix.BPF_W, K: source + uint32(at/8)},
				unix.SockFilter{Code: and, K: mask},
				unix.SockFilter{Code: equal, K: binary.BigEndian.Uint32(words[at/8:]) & mask},
			)
		}
		for i := range steps {
			if steps[i].Code == equal { // otherwise, on to the next prefix
				steps[i].Jf = uint8(len(steps) - i)
			}
		}
		filter = append(append(filter, steps...), drop)
	}
	return append(filter, pass)
}
