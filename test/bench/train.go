package main

import (
	"encoding/binary"
	"syscall"
	"unsafe"
)

// The protocol of trains. A train is some datagrams of one size that are sent in one go (UDP_SEGMENT), as QUIC's are.
// Each of them begins with the train's head. A backend that has received all bytes of a client's train answers with a
// train of as many bytes as the head requests.
const (
	trainHead      = 24   // bytes
	trainDatagram  = 1200 // bytes; what QUIC's first datagrams have at least (RFC 9000, 14.1)
	trainDatagrams = 16   // of a long train; quic-go's are about as long
	trainBytes     = trainDatagram * trainDatagrams

	udpSegment = 103     // linux/udp.h UDP_SEGMENT: what is sent at once is cut into datagrams of that size
	udpGRO     = 104     // linux/udp.h UDP_GRO: trains are read whole
	solUDP     = 17      // linux/socket.h SOL_UDP
	trainQueue = 4 << 20 // bytes; of each socket's receive buffer: a loss is to be the balancer's
)

// A train has the fields of the head, which each of its datagrams has.
type train struct {
	sequence uint64
	in       uint32 // bytes of the train itself, client to backend
	out      uint32 // bytes to answer with
}

func (t train) put(b []byte) {
	binary.BigEndian.PutUint64(b, requestMagic)
	binary.BigEndian.PutUint64(b[8:], t.sequence)
	binary.BigEndian.PutUint32(b[16:], t.in)
	binary.BigEndian.PutUint32(b[20:], t.out)
}

// head returns a train of one datagram that has no more than its head.
func (t train) head() []byte {
	t.in = trainHead
	b := make([]byte, trainHead)
	t.put(b)
	return b
}

// fill writes the head where each datagram of b begins.
func (t train) fill(b []byte) {
	for at := 0; at+trainHead <= len(b); at += trainDatagram {
		t.put(b[at:])
	}
}

// parseTrain reads the head that a datagram begins with, and reports whether it has one.
func parseTrain(b []byte) (train, bool) {
	if len(b) < trainHead || binary.BigEndian.Uint64(b) != requestMagic {
		return train{}, false
	}
	return train{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])}, true
}

// trainSocket makes a non-blocking UDP socket that sends and reads trains.
func trainSocket() (int, error) {
	s, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET,
		syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	fd := int(s)
	for _, o := range [][3]int{
		{solUDP, udpSegment, trainDatagram},
		{solUDP, udpGRO, 1},
		{syscall.SOL_SOCKET, syscall.SO_RCVBUF, trainQueue},
	} {
		if err := setOption(fd, o[0], o[1], int32(o[2])); err != nil {
			closeFD(fd)
			return -1, err
		}
	}
	return fd, nil
}

// readTrain takes one datagram or train out of the receive queue, copies its head, and returns its length: the ends are
// to cost as little as they can.
func readTrain(fd int, head *[trainHead]byte, from *syscall.RawSockaddrInet4) (int, syscall.Errno) {
	size := uint32(unsafe.Sizeof(*from))
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(head)), trainHead,
		syscall.MSG_TRUNC, uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
	return int(n), errno
}

// sendTrain sends b, to an address unless the socket is connected.
func sendTrain(fd int, b []byte, to *syscall.RawSockaddrInet4) syscall.Errno {
	size := unsafe.Sizeof(*to)
	if to == nil {
		size = 0
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_NOSIGNAL, uintptr(unsafe.Pointer(to)), size)
	return errno
}
