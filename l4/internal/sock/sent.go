package sock

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A SentState describes the bytes that were written to a connection.
type SentState struct {
	Outstanding bool          // the peer did not acknowledge all of them yet
	Full        bool          // and its receive window is closed
	Probes      int           // window probes since the peer's last answer
	SinceAck    time.Duration // time since the peer's last answer of any kind
}

// Sent asks the kernel for a connection's SentState (TCP_INFO). Of a Unix socket it is only Outstanding, as long as the
// peer has not read all.
func Sent(fd int) (SentState, Errno) {
	var info unix.TCPInfo
	size := uint32(unsafe.Sizeof(info))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if e == unix.EOPNOTSUPP {
		return unsent(fd)
	}
	if e != 0 {
		return SentState{}, e
	}
	s := SentState{
		Outstanding: info.Unacked > 0 || info.Notsent_bytes > 0,
		// No segment is in flight although bytes wait: the window is closed.
		Full:     info.Unacked == 0 && info.Notsent_bytes > 0,
		Probes:   int(info.Probes),
		SinceAck: time.Duration(info.Last_ack_recv) * time.Millisecond,
	}
	// The kernel probes a window that was shrunk to nothing with the segments in flight. Linux reports the window since
	// 5.15.
	if uintptr(size) >= unsafe.Offsetof(info.Snd_wnd)+unsafe.Sizeof(info.Snd_wnd) && info.Unacked > 0 &&
		info.Snd_wnd == 0 {
		s.Full = true
	}
	return s, 0
}

// SetUserTimeout sets TCP_USER_TIMEOUT of a connection. 0 is the kernel's default, which never gives up a peer that
// answers.
func SetUserTimeout(fd int, timeout time.Duration) {
	ms := int32(timeout.Milliseconds())
	setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unsafe.Pointer(&ms), unsafe.Sizeof(ms))
}
