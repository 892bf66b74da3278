package main

import (
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A trainServer answers trains on several ports from one loop. It belongs to one goroutine; see runTrainBackend.
type trainServer struct {
	poll   *poller
	answer []byte                  // room for the longest
	coming map[trainFlow]trainPart // trains of which a part has come
}

// A trainFlow identifies a sender and the socket it sends to. Behind a balancer that is one of its flows.
type trainFlow struct {
	fd   int
	addr [4]byte
	port uint16 // as the kernel has it
}

// A trainPart is the received part of a flow's train. The flow's next train replaces an incomplete one.
type trainPart struct {
	sequence uint64
	bytes    int
}

// runTrainBackend runs the process of the backends of trains. It prints its addresses as one line of JSON and serves
// until it is ended.
func runTrainBackend(stdout io.Writer) error {
	quiet()
	poll, err := newPoller()
	if err != nil {
		return err
	}
	s := &trainServer{poll: poll, answer: make([]byte, trainBytes), coming: map[trainFlow]trainPart{}}
	var addrs []netip.AddrPort
	for range backendCount {
		fd, err := trainSocket()
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		addr, err := bindLoopback(fd)
		if err != nil {
			return err
		}
		addrs = append(addrs, addr)
		if err := poll.add(fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(stdout).Encode(addrs); err != nil {
		return err
	}
	for {
		events, err := poll.wait(time.Second)
		if err != nil {
			return err
		}
		for i := range events {
			if err := s.read(int(events[i].Fd)); err != nil {
				return err
			}
		}
	}
}

// bindLoopback binds a socket to a free port and returns its address.
func bindLoopback(fd int) (netip.AddrPort, error) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	sa := sockaddr(netip.AddrPortFrom(loopback, 0))
	size := uint32(unsafe.Sizeof(sa))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(size)); errno != 0 {
		return netip.AddrPort{}, os.NewSyscallError("bind", errno)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", errno)
	}
	port := *(*[2]byte)(unsafe.Pointer(&sa.Port)) // network order
	return netip.AddrPortFrom(loopback, uint16(port[0])<<8|uint16(port[1])), nil
}

// trainReads is how many times a socket is read before the next one.
const trainReads = 16

// read reads the datagrams of a socket, and answers complete trains.
func (s *trainServer) read(fd int) error {
	for range trainReads {
		var head [trainHead]byte
		var from syscall.RawSockaddrInet4
		n, errno := readTrain(fd, &head, &from)
		if again(errno) {
			return nil
		}
		if errno != 0 {
			continue // the error of an answer that the client did not want any more (ICMP)
		}
		if t, ok := parseTrain(head[:min(n, trainHead)]); ok {
			s.take(fd, t, n, &from)
		}
	}
	return nil
}

// take counts a part of a train, and answers the train with its last part.
func (s *trainServer) take(fd int, t train, n int, from *syscall.RawSockaddrInet4) {
	flow := trainFlow{fd, from.Addr, from.Port}
	part := s.coming[flow]
	if part.sequence != t.sequence {
		part = trainPart{sequence: t.sequence}
	}
	part.bytes += n
	s.coming[flow] = part
	if part.bytes < int(t.in) {
		return
	}
	answer := s.answer[:min(max(int(t.out), trainHead), trainBytes)]
	t.fill(answer)
	sendTrain(fd, answer, from) // datagrams that the kernel does not accept are lost; the client counts them
}
