package sock

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kernel TLS (linux/Documentation/networking/tls.rst): the kernel encrypts what is written to a TCP connection, and
// decrypts what is read from it, with keys that a handshake in the program has brought. Read, Write and splice then
// carry what is inside, up to a record that is not data: see ReadRecord.

// What Read and Pipe.Fill say of a connection with kernel TLS.
const (
	NotData    = unix.EIO      // Read: the next record is not data
	NoData     = unix.EINVAL   // Pipe.Fill: the same; or no record is there at all
	BadSeal    = unix.EBADMSG  // a record was forged, or is of other keys
	LongRecord = unix.EMSGSIZE // a record is longer than one may be
)

// The types of records (RFC 8446, B.1).
const (
	RecordAlert     = 21
	RecordHandshake = 22
	RecordData      = 23
)

// The alert of CloseNotify (RFC 8446, 6).
const (
	alertWarning = 1
	closeNotify  = 0
)

// KernelKeys are what one direction of a connection is encrypted with by TLS 1.3 (RFC 8446, 7.3).
type KernelKeys struct {
	Suite    uint16 // such as tls.TLS_AES_128_GCM_SHA256
	Key      []byte // KernelCipher says how long
	IV       [12]byte
	Sequence uint64 // of the next record
}

// The ciphers of linux/tls.h that TLS 1.3 has.
var kernelCiphers = map[uint16]struct{ id, keyBytes, saltBytes int }{
	tls.TLS_AES_128_GCM_SHA256:       {51, 16, 4},
	tls.TLS_AES_256_GCM_SHA384:       {52, 32, 4},
	tls.TLS_CHACHA20_POLY1305_SHA256: {54, 32, 0},
}

// KernelKeyBytes is the length of a suite's key; 0 if kernel TLS has no such suite.
func KernelKeyBytes(suite uint16) int { return kernelCiphers[suite].keyBytes }

// The options of SOL_TLS (linux/tls.h); those of control messages have the same numbers.
const (
	tlsSend    = 1
	tlsReceive = 2
)

// appendTo writes the keys as the kernel wants them, a struct tls12_crypto_info_*.
func (k *KernelKeys) appendTo(p []byte) []byte {
	c := kernelCiphers[k.Suite]
	p = binary.NativeEndian.AppendUint16(p, tls.VersionTLS13)
	p = binary.NativeEndian.AppendUint16(p, uint16(c.id))
	p = append(p, k.IV[c.saltBytes:]...)
	p = append(p, k.Key...)
	p = append(p, k.IV[:c.saltBytes]...)
	return binary.BigEndian.AppendUint64(p, k.Sequence)
}

// maxKernelKeys is the size of the largest struct tls12_crypto_info_*.
const maxKernelKeys = 64

// BeginKernelTLS makes a connection one that can have kernel TLS. It changes nothing else. It fails where the kernel has
// none, and for a connection that one side has ended.
func BeginKernelTLS(fd int) Errno {
	name := [...]byte{'t', 'l', 's', 0}
	return setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, unsafe.Pointer(&name), unsafe.Sizeof(name))
}

// SetKernelTLS makes the kernel encrypt what is written from now on, and decrypt what has not been read yet. After an
// error the connection is of no use.
func SetKernelTLS(fd int, send, receive *KernelKeys) Errno {
	if e := setKernelKeys(fd, tlsSend, send); e != 0 {
		return e
	}
	return setKernelKeys(fd, tlsReceive, receive)
}

func setKernelKeys(fd, direction int, k *KernelKeys) Errno {
	var room [maxKernelKeys]byte
	info := k.appendTo(room[:0])
	e := setsockopt(fd, unix.SOL_TLS, direction, unsafe.Pointer(&info[0]), uintptr(len(info)))
	clear(room[:])
	return e
}

// A recordControl is a control message with the type of a record.
type recordControl struct {
	header unix.Cmsghdr
	kind   uint8
	_      [7]byte
}

// ReadRecord reads one record, after Read or Pipe.Fill has said NotData or NoData, as far as p has room for it. With
// Again there is none.
func ReadRecord(fd int, p []byte) (kind uint8, n int, e Errno) {
	var control recordControl
	part := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	h := unix.Msghdr{
		Iov: &part, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control)), Controllen: uint64(unsafe.Sizeof(control)),
	}
	for {
		got, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return 0, 0, e
		case h.Controllen == 0 || control.header.Level != unix.SOL_TLS || control.header.Type != tlsReceive:
			return RecordData, int(got), 0
		}
		return control.kind, int(got), 0
	}
}

// CloseNotify says that nothing more comes, before a FIN says it: see SendAlert. With Again there is no room now.
//
// The kernel takes a record more than the send buffer has room for, and keeps it aside. A FIN would overtake that one,
// and it would be lost. What is aside goes when the alert goes, if there is room for both.
func CloseNotify(fd int) Errno {
	if !hasRoom(fd) {
		return Again
	}
	return SendAlert(fd, alertWarning, closeNotify)
}

// hasRoom reports whether a third of a connection's send buffer is free (poll(2)). If not, a Poller reports when it is.
func hasRoom(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	var now unix.Timespec
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if e != unix.EINTR {
			return e != 0 || n > 0
		}
	}
}

// SendAlert sends an alert (RFC 8446, 6) as a record of kernel TLS, behind all that was written before.
func SendAlert(fd int, level, description uint8) Errno {
	p := [...]byte{level, description}
	control := recordControl{
		header: unix.Cmsghdr{Len: uint64(unsafe.Sizeof(unix.Cmsghdr{})) + 1, Level: unix.SOL_TLS, Type: tlsSend},
		kind:   RecordAlert,
	}
	part := unix.Iovec{Base: &p[0], Len: uint64(len(p))}
	h := unix.Msghdr{
		Iov: &part, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control)), Controllen: uint64(unsafe.Sizeof(control)),
	}
	for {
		_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if e != unix.EINTR {
			return e
		}
	}
}

// A KernelTLS is what the kernel can do for TLS 1.3.
type KernelTLS struct {
	Suites []uint16 // that it has; in the order of preference
	Err    error    // why it has none, or not all; nil if it has all
}

// Has reports whether the kernel has a cipher suite.
func (k *KernelTLS) Has(suite uint16) bool { return slices.Contains(k.Suites, suite) }

// Names returns the names of the suites.
func (k *KernelTLS) Names() []string {
	names := []string{}
	for _, s := range k.Suites {
		names = append(names, tls.CipherSuiteName(s))
	}
	return names
}

// DetectKernelTLS finds out what the kernel can do, with a connection to this process itself. It tries once, at the
// first call; the kernel loads its module by that only for a process that may administer the network. It may be called
// from any goroutine.
func DetectKernelTLS() *KernelTLS { return detectKernelTLS() }

var detectKernelTLS = sync.OnceValue(func() *KernelTLS {
	k := &KernelTLS{}
	for _, suite := range []uint16{
		tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256,
	} {
		if err := tryKernelTLS(suite); err != nil {
			k.Err = err
		} else {
			k.Suites = append(k.Suites, suite)
		}
	}
	return k
})

// tryKernelTLS gives a connection of this process to itself keys of a suite.
func tryKernelTLS(suite uint16) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		if ln, err = net.Listen("tcp", "[::1]:0"); err != nil {
			return fmt.Errorf("it could not be tried: %w", err)
		}
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return fmt.Errorf("it could not be tried: %w", err)
	}
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	keys := &KernelKeys{Suite: suite, Key: make([]byte, KernelKeyBytes(suite))}
	var e Errno
	begun := false
	err = raw.Control(func(fd uintptr) {
		if e = BeginKernelTLS(int(fd)); e == 0 {
			begun = true
			e = SetKernelTLS(int(fd), keys, keys)
		}
	})
	switch {
	case err != nil:
		return err
	case e == 0:
		return nil
	case begun:
		return fmt.Errorf("the kernel's TLS has no %s: %w", tls.CipherSuiteName(suite), e)
	case errors.Is(e, os.ErrNotExist):
		return errors.New("the kernel has no TLS, or its module is not loaded (modprobe tls)")
	}
	return fmt.Errorf("the kernel's TLS cannot be used: %w", e)
}
