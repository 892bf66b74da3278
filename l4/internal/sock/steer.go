package sock

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where a socket's filter finds the network header, and a random number (include/uapi/linux/filter.h, SKF_NET_OFF and
// SKF_AD_RANDOM).
const (
	networkHeader = 0xfff00000
	randomNumber  = 0xfffff000 + 56
)

// SteerBySource makes the kernel choose among the count sockets that share fd's address by the client's address alone,
// for IPv6 by its first 64 bits: then all flows of a client are on one loop. The sockets are numbered in the order in
// which they were bound. If no socket has the number that the filter returns, the kernel chooses as usual.
func SteerBySource(fd, count int) error {
	const (
		load    = unix.BPF_LD | unix.BPF_ABS
		operate = unix.BPF_ALU | unix.BPF_K
		xorX    = unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X
		toX     = unix.BPF_MISC | unix.BPF_TAX
	)
	filter := [...]unix.SockFilter{
		{Code: load | unix.BPF_B, K: networkHeader},
		{Code: operate | unix.BPF_RSH, K: 4}, // the version
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jt: 2},
		{Code: load | unix.BPF_W, K: networkHeader + 12}, // IPv4: the source
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 4},
		{Code: load | unix.BPF_W, K: networkHeader + 8}, // IPv6: its first half
		{Code: toX},
		{Code: load | unix.BPF_W, K: networkHeader + 12},
		{Code: xorX},
		// Neighbouring addresses must not all go to one socket, nor addresses that differ only in a later byte. The
		// factor is 2^32 divided by the golden ratio.
		{Code: operate | unix.BPF_MUL, K: 2654435769},
		{Code: operate | unix.BPF_RSH, K: 16},
		{Code: operate | unix.BPF_MOD, K: uint32(count)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	return steer(fd, filter[:])
}

// SteerToSome makes the kernel choose at random among count of the sockets that share fd's address, from number first
// on. The sockets are numbered in the order in which they were bound.
func SteerToSome(fd, first, count int) error {
	filter := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: randomNumber},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(count)},
		{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K, K: uint32(first)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	return steer(fd, filter[:])
}

// steer attaches a program to the sockets that share fd's address. The program returns the number of one of them.
func steer(fd int, filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if e := setsockopt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, unsafe.Pointer(&program),
		unsafe.Sizeof(program)); e != 0 {
		return os.NewSyscallError("setsockopt", e)
	}
	return nil
}

// SteerAsUsual undoes SteerBySource and SteerToSome.
func SteerAsUsual(fd int) {
	var unused int32
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, unsafe.Pointer(&unused), unsafe.Sizeof(unused))
}
