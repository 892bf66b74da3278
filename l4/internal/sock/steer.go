package sock

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where a filter for a socket finds the network header, and a random number (include/uapi/linux/filter.h, SKF_NET_OFF
// and SKF_AD_RANDOM).
const (
	networkHeader = 0xfff00000
	randomNumber  = 0xfffff000 + 56
)

// SteerBySource has the kernel choose among the count sockets that share fd's address by the client's address alone, an IPv6
// one by its first 64 bits: all flows of a client are then on one loop. The sockets count in the order in which they were bound.
// A number that is none of theirs, while others share the address too, makes the kernel choose as usual.
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
		// Neighbours must not all be on one socket, nor those that differ in a later byte only. 2^32 divided by the golden ratio.
		{Code: operate | unix.BPF_MUL, K: 2654435769},
		{Code: operate | unix.BPF_RSH, K: 16},
		{Code: operate | unix.BPF_MOD, K: uint32(count)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	return steer(fd, filter[:])
}

// SteerToSome has the kernel choose among count of the sockets that share fd's address, those from the first on, in the
// order in which they were bound.
func SteerToSome(fd, first, count int) error {
	filter := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: randomNumber},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(count)},
		{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K, K: uint32(first)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	return steer(fd, filter[:])
}

// steer gives the sockets that share fd's address a program that returns the number of one of them.
func steer(fd int, filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if e := setsockopt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, unsafe.Pointer(&program), unsafe.Sizeof(program)); e != 0 {
		return os.NewSyscallError("setsockopt", e)
	}
	return nil
}

// SteerAsUsual undoes SteerBySource and SteerToSome.
func SteerAsUsual(fd int) {
	var unused int32
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, unsafe.Pointer(&unused), unsafe.Sizeof(unused))
}
