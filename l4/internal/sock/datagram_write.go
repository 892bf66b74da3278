package sock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of a train: the kernel takes 64 datagrams (UDP_MAX_SEGMENTS was that before Linux 6.9), and no more bytes than
// one IPv4 datagram may have.
const (
	trainDatagrams = 64
	trainBytes     = 65507
)

// writerPieces bounds the pieces of all messages of a DatagramWriter.
const writerPieces = 256

// A DatagramWriter gathers datagrams and sends them in one go. Those for one receiver and of one size go as a train that the
// kernel cuts (UDP_SEGMENT), if Trains is set. What is added is not copied: it must stay as it is until it was sent. It is used by one
// goroutine; the zero value is empty and ready.
type DatagramWriter struct {
	Trains bool // the kernel knows trains

	// Refused says that a train since Clear could not go as such: datagrams longer than the path takes in one piece, or a
	// device that cannot do it. Its datagrams have gone one by one.
	Refused bool

	headers  [DatagramSlots]mmsghdr
	pieces   [writerPieces]unix.Iovec
	peers    [DatagramSlots]Peer
	controls [DatagramSlots]control
	trains   [DatagramSlots]train
	parts    [2]unix.Iovec // of a datagram that goes singly
	messages int
	used     int // of pieces
	sent     int // messages that are done with
	gone     int // datagrams that are
}

// A train is what a message is made of: datagrams of one size, but for a last one that is shorter. A lone datagram is one, too.
type train struct {
	first     int // of its pieces
	pieces    int
	size      int // of its datagrams
	datagrams int
	bytes     int
	address   int  // bytes of control data that say where it comes from
	headed    bool // each datagram is two pieces; else each piece is whole datagrams
	closed    bool // its last one is shorter
	singly    bool // it goes datagram by datagram
	gone      int  // of these, how many have
}

// Empty tells whether all that was added is done with.
func (w *DatagramWriter) Empty() bool { return w.sent == w.messages }

// Room tells whether there is room for another Add or AddTrain.
func (w *DatagramWriter) Room() bool {
	return w.messages < DatagramSlots && w.used+2 <= writerPieces
}

// Gone is how many datagrams since Clear are done with.
func (w *DatagramWriter) Gone() int { return w.gone }

// Clear forgets all that was added.
func (w *DatagramWriter) Clear() {
	w.messages, w.used, w.sent, w.gone, w.Refused = 0, 0, 0, 0, false
}

// Add adds a datagram for a peer, nil for the one that the socket is connected to; head, unless it is empty, goes in front of
// it. It is sent from the address from, unless that is zero. joins says that what was added before has the same peer, the same
// from and heads or none as well, so that the two may be a train. There must be Room.
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

// AddTrain adds datagrams of size bytes each, of which the last may be shorter, as Add does; it needs Trains. It takes as many as
// one message does, and returns how many bytes they are. There must be Room.
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

// join returns the train that was added last if these datagrams may follow, nil else.
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

// Send sends what was added and is not done with, in its order, and returns the Errno of the datagram or train that could not
// be sent: Skip leaves that out, another Send tries it again.
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
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&w.headers[w.sent])), uintptr(w.messages-w.sent),
			unix.MSG_NOSIGNAL, 0, 0)
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

// refusesTrain tells whether an error may be a train's, and not its datagrams' (udp_send_skb and __ip_append_data in the kernel).
func refusesTrain(e Errno) bool {
	return e == unix.EINVAL || e == unix.EIO || e == unix.EMSGSIZE || e == unix.EOPNOTSUPP
}

// prepare writes a message's header; of a train that goes singly, sendNext does.
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

// withControl says how many bytes of control data a message has.
func (w *DatagramWriter) withControl(i, size int) {
	h := &w.headers[i].Msghdr
	h.Control = nil
	if size > 0 {
		h.Control = (*byte)(unsafe.Pointer(&w.controls[i]))
	}
	h.SetControllen(size)
}

// sendNext sends the next datagram of a train that goes singly.
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

// done counts datagrams of the train in line that are done with.
func (w *DatagramWriter) done(t *train, n int) {
	w.gone += n
	if t.gone += n; t.gone == t.datagrams {
		w.sent++
	}
}

// datagram returns the k-th datagram of a train.
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

// Skip leaves out what Send could not send, and returns how many datagrams that is.
func (w *DatagramWriter) Skip() int {
	t := &w.trains[w.sent]
	n := 1
	if !t.singly {
		n = t.datagrams
	}
	w.done(t, n)
	return n
}

// Left calls f for each datagram that is not done with, in order.
func (w *DatagramWriter) Left(f func(head, body []byte)) {
	for i := w.sent; i < w.messages; i++ {
		t := &w.trains[i]
		for k := t.gone; k < t.datagrams; k++ {
			f(w.datagram(t, k))
		}
	}
}

// sentFrom writes the control message that has a message sent from l, by its peer's family, and returns its size.
func (c *control) sentFrom(l *Local, family uint16) int {
	if family == unix.AF_INET {
		const size = unix.SizeofInet4Pktinfo
		*(*unix.Inet4Pktinfo)(c.begin(0, unix.IPPROTO_IP, unix.IP_PKTINFO, size)) = unix.Inet4Pktinfo{Spec_dst: [4]byte(l.addr[12:])}
		return unix.CmsgSpace(size)
	}
	const size = unix.SizeofInet6Pktinfo
	*(*unix.Inet6Pktinfo)(c.begin(0, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, size)) = unix.Inet6Pktinfo{Addr: l.addr, Ifindex: l.link}
	return unix.CmsgSpace(size)
}

// cutInto appends the control message that cuts a message into datagrams, at an offset, and returns the new size.
func (c *control) cutInto(size, at int) int {
	*(*uint16)(c.begin(at, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)) = uint16(size)
	return at + unix.CmsgSpace(2)
}

// begin writes the head of a control message at an offset, and returns where its data belong.
func (c *control) begin(at int, level, kind int32, size int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(c), at))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return unsafe.Add(unsafe.Pointer(c), at+unix.CmsgLen(0))
}
