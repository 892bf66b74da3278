package sock

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DatagramSlots is how many messages a DatagramReader holds and a DatagramWriter sends in one call. Each message may be
// a train.
const DatagramSlots = 32

// MaxDatagram is the size of a slot: no datagram and no train is longer.
const MaxDatagram = 1 << 16

// slotStride keeps the slots' first bytes out of each other's cache sets; most slots are not used beyond them.
const slotStride = MaxDatagram + 192

// controlBytes has room for an IPV6_PKTINFO, a UDP_GRO and an SO_RXQ_OVFL. The array has words, since the kernel aligns
// control messages to words.
const controlBytes = 128

type control [controlBytes / 8]uint64

// An mmsghdr is a message of sendmmsg and recvmmsg (recvmmsg(2)).
type mmsghdr struct {
	unix.Msghdr
	bytes uint32
}

// A Peer is a client's address as the kernel wrote it, with its scope. The zero value is no address.
type Peer struct{ sa unix.RawSockaddrInet6 }

// AddrPort returns the address without its zone. An IPv4 client has an IPv4 address.
func (p *Peer) AddrPort() netip.AddrPort { return addrPort(&p.sa) }

// Addr16 returns the address in sixteen bytes, IPv4 mapped into IPv6, and the scope of a link-local one.
func (p *Peer) Addr16() (addr [16]byte, scope uint32) {
	if p.sa.Family == unix.AF_INET {
		return mapped((*unix.RawSockaddrInet4)(unsafe.Pointer(&p.sa)).Addr), 0
	}
	return p.sa.Addr, p.sa.Scope_id
}

// Port returns the address's port.
func (p *Peer) Port() uint16 { return p.sa.Port>>8 | p.sa.Port<<8 }

func (p *Peer) size() uint32 {
	if p.sa.Family == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// A Local is the local address that a datagram was sent to. The zero value is no address.
type Local struct {
	addr [16]byte // IPv4 mapped into IPv6
	link uint32   // the interface of a link-local address
}

// Addr16 returns the address in sixteen bytes, IPv4 mapped into IPv6; all zero for no address.
func (l *Local) Addr16() [16]byte { return l.addr }

// LocalOf returns the Local of an address.
func LocalOf(addr netip.Addr) Local { return Local{addr: addr.As16()} }

func mapped(a [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: a[0], 13: a[1], 14: a[2], 15: a[3]}
}

// A DatagramReader is the memory that datagrams are read into, in slots. Only one goroutine may use it; its zero value
// is of no use, see NewDatagramReader. The memory behind a slot's first bytes is not touched until a long datagram
// arrives in that slot.
type DatagramReader struct {
	headers  [DatagramSlots]mmsghdr
	vectors  [DatagramSlots]unix.Iovec
	peers    [DatagramSlots]Peer
	controls [DatagramSlots]control
	memory   []byte
	named    bool
}

// NewDatagramReader makes a reader. With named set it also records each datagram's sender, for sockets that clients
// send to; connected sockets need no named.
func NewDatagramReader(named bool) *DatagramReader {
	r := &DatagramReader{memory: make([]byte, DatagramSlots*slotStride), named: named}
	for i := range r.headers {
		r.vectors[i].Base = &r.memory[i*slotStride]
		r.vectors[i].SetLen(MaxDatagram)
		h := &r.headers[i].Msghdr
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&r.controls[i]))
		if named {
			h.Name = (*byte)(unsafe.Pointer(&r.peers[i]))
		}
	}
	return r
}

// Read reads at most count messages into the slots from first on, and returns how many it read. Fewer than count mean
// that the socket has no more. A pending error of the socket is returned alone, before any datagram.
func (r *DatagramReader) Read(fd, first, count int) (int, Errno) {
	for i := first; i < first+count; i++ {
		h := &r.headers[i].Msghdr
		h.SetControllen(controlBytes)
		if r.named {
			h.Namelen = unix.SizeofSockaddrInet6
		}
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.headers[first])),
			uintptr(count), unix.MSG_DONTWAIT, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// A Message is the content of a slot: a datagram, or a train of datagrams of one size, whose last may be shorter. It is
// valid until its slot is read into again.
type Message struct {
	Bytes     []byte
	Size      int    // of each datagram of a train; 0 = Bytes is one datagram
	Truncated bool   // the end is missing
	Lost      uint32 // datagrams dropped since the socket was opened, its buffer being full; 0 = none, or not known
	Local     Local  // the destination; readers with named set only
}

// Message returns the message that Read put into a slot.
func (r *DatagramReader) Message(slot int) Message {
	h := &r.headers[slot]
	at := slot * slotStride
	m := Message{Bytes: r.memory[at : at+int(h.bytes) : at+MaxDatagram], Truncated: h.Flags&unix.MSG_TRUNC != 0}
	if h.Controllen == 0 {
		return m
	}
	r.controls[slot].each(int(h.Controllen), func(level, kind int32, data unsafe.Pointer) {
		switch {
		case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO:
			if size := int(*(*int32)(data)); size < len(m.Bytes) {
				m.Size = size
			}
		case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL:
			m.Lost = *(*uint32)(data)
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO:
			// Spec_dst is a local address even when the datagram was sent to a broadcast address.
			m.Local = Local{addr: mapped((*unix.Inet4Pktinfo)(data).Spec_dst)}
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO:
			m.Local = local6((*unix.Inet6Pktinfo)(data))
		}
	})
	return m
}

// local6 returns the address that answers are sent from. It is none for a multicast group: then the kernel chooses.
func local6(info *unix.Inet6Pktinfo) Local {
	switch a := netip.AddrFrom16(info.Addr); {
	case a.IsMulticast() || a.Is4In6() && a.Unmap().IsMulticast():
		return Local{}
	case a.IsLinkLocalUnicast():
		return Local{addr: info.Addr, link: info.Ifindex}
	}
	return Local{addr: info.Addr}
}

// Peer returns the sender of the message in a slot. It is valid as long as the message.
func (r *DatagramReader) Peer(slot int) *Peer { return &r.peers[slot] }

// each calls f for every control message in the first size bytes.
func (c *control) each(size int, f func(level, kind int32, data unsafe.Pointer)) {
	for at := 0; at+unix.SizeofCmsghdr <= size; {
		h := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(c), at))
		if h.Len < unix.SizeofCmsghdr || at+int(h.Len) > size {
			return
		}
		f(h.Level, h.Type, unsafe.Add(unsafe.Pointer(c), at+unix.CmsgLen(0)))
		at += unix.CmsgSpace(int(h.Len) - unix.CmsgLen(0))
	}
}
