package sock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of a train. The kernel allows 64 datagrams (UDP_MAX_SEGMENTS before Linux 6.9), and no more bytes than fit
// into one IPv4 datagram.
const (
	trainDatagrams = 64
	trainBytes     = 65507
)

// writerPieces bounds the number of pieces in all messages of a DatagramWriter.
const writerPieces = 256

// A DatagramWriter gathers datagrams and sends them in one call. If Trains is set, datagrams of one size for one
// receiver are sent as a train that the kernel cuts (UDP_SEGMENT). The bytes that are added are not copied: they must
// not change until they are sent. Only one goroutine may use a DatagramWriter; its zero value is empty and ready.
type DatagramWriter struct {
	Trains bool // the kernel supports trains

	// Refused says that the kernel refused a train since Clear: its datagrams are longer than the path takes in one
	// piece, or the device cannot send trains. Its datagrams were sent one by one.
	Refused bool

	headers  [DatagramSlots]mmsghdr
	pieces   [writerPieces]unix.Iovec
	peers    [DatagramSlots]Peer
	controls [DatagramSlots]control
	trains   [DatagramSlots]train
	parts    [2]unix.Iovec // of a datagram that is sent singly
	messages int
	used     int // of pieces
	sent     int // messages sent or skipped
	gone     int // datagrams sent or skipped
}

// A train is the content of a message: datagrams of one size, of which the last may be shorter. A single datagram is a
// train too.
type train struct {
	first     int // index of its first piece
	pieces    int
	size      int // of its datagrams
	datagrams int
	bytes     int
	address   int  // bytes of control data for the source address
	headed    bool // each datagram is two pieces; else each piece holds whole datagrams
	closed    bool // its last datagram is shorter
	singly    bool // it is sent datagram by datagram
	gone      int  // how many of its datagrams were sent or skipped
}

// Empty reports whether everything that was added is sent or skipped.
func (w *DatagramWriter) Empty() bool { return w.sent == w.messages }

// Room reports whether there is room for another Add or AddTrain.
func (w *DatagramWriter) Room() bool {
	return w.messages < DatagramSlots && w.used+2 <= writerPieces
}

// Gone returns how many datagrams were sent or skipped since Clear.
func (w *DatagramWriter) Gone() int { return w.gone }

// Clear forgets everything that was added.
func (w *DatagramWriter) Clear() {
	w.messages, w.used, w.sent, w.gone, w.Refused = 0, 0, 0, 0, false
}

// Add adds a datagram for a peer; nil is the peer that the socket is connected to. If head is not empty, it goes in
// front of body. The datagram is sent from the address from, unless that is zero. With joins set, the datagram before
// it has the same peer and the same from, and both or neither have a head, so that the two may form a train. The caller
// checks Room first.
func (w *DatagramWriter) Add(to *Peer, from *Local, head, body []byte, joins bool) {
	size := len(head) + len(body)
	t := w.join(joins, size, 1, size)
	if t == nil {
		t = w.begin(to, from, size)
		t.headed = len(head) > 0
	}
	if t.headed {
		w.piece(t, head)
	}
	w.piece(t, body)
	t.add(1, size)
}

// AddTrain adds datagrams of size bytes each, like Add; the last may be shorter. It needs Trains. It takes as many as
// fit into one message, and returns how many bytes they have. The caller checks Room first.
func (w *DatagramWriter) AddTrain(to *Peer, from *Local, body []byte, size int, joins bool) int {
	count := min((len(body)+size-1)/size, trainDatagrams, trainBytes/size)
	body = body[:min(len(body), count*size)]
	t := w.join(joins, size, count, len(body))
	if t == nil {
		t = w.begin(to, from, size)
	}
	w.piece(t, body)
	t.add(count, len(body))
	return len(body)
}

// join returns the train that was added last if these datagrams may follow it, else nil.
func (w *DatagramWriter) join(joins bool, size, datagrams, bytes int) *train {
	if !joins || !w.Trains || w.messages == w.sent {
		return nil
	}
	t := &w.trains[w.messages-1]
	fits := size == t.size || size < t.size && datagrams == 1
	if t.closed || !fits || bytes == 0 || t.datagrams+datagrams > trainDatagrams || t.bytes+bytes > trainBytes {
		return nil
	}
	return t
}

func (t *train) add(datagrams, bytes int) {
	t.datagrams += datagrams
	t.bytes += bytes
	t.closed = bytes < datagrams*t.size
}

func (w *DatagramWriter) begin(to *Peer, from *Local, size int) *train {
	i := w.messages
	w.messages++
	t := &w.trains[i]
	*t = train{first: w.used, size: size}
	h := &w.headers[i]
	h.Msghdr = unix.Msghdr{}
	if to != nil {
		w.peers[i] = *to
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&w.peers[i])), to.size()
		if from.addr != [16]byte{} {
			t.address = w.controls[i].sentFrom(from, to.sa.Family)
		}
	}
	return t
}

func (w *DatagramWriter) piece(t *train, p []byte) {
	w.pieces[w.used].Base = unsafe.SliceData(p)
	w.pieces[w.used].SetLen(len(p))
	w.used++
	t.pieces++
}

// Send sends, in order, what was added and neither sent nor skipped yet. It returns the Errno of the first datagram or
// train that could not be sent: Skip omits that one, another Send tries it again.
func (w *DatagramWriter) Send(fd int) Errno {
	for i := w.sent; i < w.messages; i++ {
		w.prepare(i)
	}
	for w.sent < w.messages {
		t := &w.trains[w.sent]
		if t.singly {
			if e := w.sendNext(fd, t); e != 0 {
				return e
			}
			continue
		}
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&w.headers[w.sent])),
			uintptr(w.messages-w.sent), unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case e == 0:
			for range int(n) {
				w.done(&w.trains[w.sent], w.trains[w.sent].datagrams)
			}
		case t.datagrams > 1 && refusesTrain(e):
			t.singly, w.Refused = true, true
		case e != unix.EINTR:
			return e
		}
	}
	return 0
}

// refusesTrain reports whether an error may be due to the train and not to its datagrams (udp_send_skb and
// __ip_append_data in the kernel).
func refusesTrain(e Errno) bool {
	return e == unix.EINVAL || e == unix.EIO || e == unix.EMSGSIZE || e == unix.EOPNOTSUPP
}

// prepare writes a message's header. sendNext does it for a train that is sent singly.
func (w *DatagramWriter) prepare(i int) {
	t, h := &w.trains[i], &w.headers[i].Msghdr
	if t.singly {
		return
	}
	h.Iov = &w.pieces[t.first]
	h.SetIovlen(t.pieces)
	size := t.address
	if t.datagrams > 1 {
		size = w.controls[i].cutInto(t.size, size)
	}
	w.withControl(i, size)
}

// withControl sets how many bytes of control data a message has.
func (w *DatagramWriter) withControl(i, size int) {
	h := &w.headers[i].Msghdr
	h.Control = nil
	if size > 0 {
		h.Control = (*byte)(unsafe.Pointer(&w.controls[i]))
	}
	h.SetControllen(size)
}

// sendNext sends the next datagram of a train that is sent singly.
func (w *DatagramWriter) sendNext(fd int, t *train) Errno {
	h := &w.headers[w.sent].Msghdr
	w.withControl(w.sent, t.address)
	head, body := w.datagram(t, t.gone)
	for i, p := range [...][]byte{head, body} {
		w.parts[i].Base = unsafe.SliceData(p)
		w.parts[i].SetLen(len(p))
	}
	h.Iov = &w.parts[0]
	h.SetIovlen(len(w.parts))
	for {
		_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), unix.MSG_NOSIGNAL)
		if e == unix.EINTR {
			continue
		}
		if e == 0 {
			w.done(t, 1)
		}
		return e
	}
}

// done counts n datagrams of the current train as sent or skipped.
func (w *DatagramWriter) done(t *train, n int) {
	w.gone += n
	if t.gone += n; t.gone == t.datagrams {
		w.sent++
	}
}

// datagram returns datagram k of a train.
func (w *DatagramWriter) datagram(t *train, k int) (head, body []byte) {
	if t.headed {
		return bytesOf(&w.pieces[t.first+2*k]), bytesOf(&w.pieces[t.first+2*k+1])
	}
	for i := t.first; ; i++ {
		p := bytesOf(&w.pieces[i])
		n := 1
		if t.size > 0 {
			n = (len(p) + t.size - 1) / t.size
		}
		if k < n {
			return nil, p[k*t.size : min(len(p), (k+1)*t.size)]
		}
		k -= n
	}
}

func bytesOf(v *unix.Iovec) []byte { return unsafe.Slice(v.Base, int(v.Len)) }

// Skip omits the datagram or train that Send could not send, and returns how many datagrams that is.
func (w *DatagramWriter) Skip() int {
	t := &w.trains[w.sent]
	n := 1
	if !t.singly {
		n = t.datagrams
	}
	w.done(t, n)
	return n
}

// Left calls f for each datagram that is neither sent nor skipped, in order.
func (w *DatagramWriter) Left(f func(head, body []byte)) {
	for i := w.sent; i < w.messages; i++ {
		t := &w.trains[i]
		for k := t.gone; k < t.datagrams; k++ {
			f(w.datagram(t, k))
		}
	}
}

// sentFrom writes the control message that sets a message's source address to l, in the peer's family, and returns its
// size.
func (c *control) sentFrom(l *Local, family uint16) int {
	if family == unix.AF_INET {
		const size = unix.SizeofInet4Pktinfo
		info := (*unix.Inet4Pktinfo)(c.begin(0, unix.IPPROTO_IP, unix.IP_PKTINFO, size))
		*info = unix.Inet4Pktinfo{Spec_dst: [4]byte(l.addr[12:])}
		return unix.CmsgSpace(size)
	}
	const size = unix.SizeofInet6Pktinfo
	info := (*unix.Inet6Pktinfo)(c.begin(0, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, size))
	*info = unix.Inet6Pktinfo{Addr: l.addr, Ifindex: l.link}
	return unix.CmsgSpace(size)
}

// cutInto appends, at an offset, the control message that cuts a message into datagrams, and returns the new size.
func (c *control) cutInto(size, at int) int {
	*(*uint16)(c.begin(at, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)) = uint16(size)
	return at + unix.CmsgSpace(2)
}

// begin writes the header of a control message at an offset, and returns where its data belongs.
func (c *control) begin(at int, level, kind int32, size int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(c), at))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return unsafe.Add(unsafe.Pointer(c), at+unix.CmsgLen(0))
}
