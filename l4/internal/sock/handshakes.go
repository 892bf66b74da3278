package sock

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Handshake is a TCP connection whose handshake a client began and did not finish yet: the addresses and ports of
// both ends, as the kernel writes them (struct inet_diag_sockid).
type Handshake [36]byte

// Handshakes adds to found the unfinished handshakes with the given local port in this network namespace. It asks the
// kernel by netlink (sock_diag(7)). The kernel searches the table of all connections, which takes some milliseconds if
// the table is large. A sandbox may forbid it.
func Handshakes(port uint16, found map[Handshake]bool) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer Close(fd)
	// An IPv4 client of a dual-stack socket counts as an IPv6 client.
	for _, family := range [...]byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, askHandshakes(family, port), 0,
			&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return os.NewSyscallError("sendto", err)
		}
		if err := readHandshakes(fd, found); err != nil {
			return err
		}
	}
	return nil
}

// Lengths in include/uapi/linux/inet_diag.h, and the offset of the sockid in each structure.
const (
	diagRequestBytes = 56 // struct inet_diag_req_v2
	diagRequestID    = 8
	diagMessageBytes = 72 // struct inet_diag_msg
	diagMessageID    = 4
)

const (
	sockDiagByFamily = 20     // include/uapi/linux/sock_diag.h
	stateSynRecv     = 1 << 3 // include/net/tcp_states.h
)

func askHandshakes(family byte, port uint16) []byte {
	request := make([]byte, unix.SizeofNlMsghdr+diagRequestBytes)
	*(*unix.NlMsghdr)(unsafe.Pointer(unsafe.SliceData(request))) = unix.NlMsghdr{
		Len: uint32(len(request)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP,
	}
	body := request[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], stateSynRecv)
	binary.BigEndian.PutUint16(body[diagRequestID:], port)
	return request
}

// readHandshakes reads one complete answer of the kernel.
func readHandshakes(fd int, found map[Handshake]bool) error {
	buf := make([]byte, 32<<10) // the kernel fills no more, even for a larger buffer
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			header := *(*unix.NlMsghdr)(unsafe.Pointer(unsafe.SliceData(rest)))
			if header.Len < unix.SizeofNlMsghdr || int(header.Len) > len(rest) {
				return os.NewSyscallError("recvfrom", unix.EBADMSG)
			}
			body := rest[unix.SizeofNlMsghdr:header.Len]
			switch {
			case header.Type == unix.NLMSG_DONE:
				return nil
			case header.Type == unix.NLMSG_ERROR && len(body) >= 4:
				return os.NewSyscallError("sock_diag", Errno(-int32(binary.NativeEndian.Uint32(body))))
			case header.Type == sockDiagByFamily && len(body) >= diagMessageBytes:
				found[Handshake(body[diagMessageID:][:len(Handshake{})])] = true
			}
			rest = rest[min(len(rest), int(header.Len+3)&^3):]
		}
	}
}
