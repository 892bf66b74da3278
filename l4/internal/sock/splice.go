package sock

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeBytes is the size requested for a Pipe: the most that an unprivileged user may have (fs.pipe-max-size). Each move
// through the pipe costs two system calls and a wake-up at the far end. Measured per GB on loopback, one stream and
// eight: 256 KiB 337 ms, 512 KiB 241 and 300 ms, 1 MiB 238 and 253 ms.
const pipeBytes = 1 << 20

// A Pipe lets splice(2) move bytes without copying them into the process. Its zero value is of no use, see NewPipe. It
// belongs to one loop.
type Pipe struct {
	r, w int
	held int // bytes in the pipe
}

// NewPipe makes a Pipe. If the kernel refuses the larger size, the pipe has the default size.
func NewPipe() (*Pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeBytes)
	return &Pipe{r: fds[0], w: fds[1]}, nil
}

// Held returns how many bytes are in the pipe.
func (p *Pipe) Held() int { return p.held }

// Close closes the pipe and drops its bytes.
func (p *Pipe) Close() {
	Close(p.r)
	Close(p.w)
}

// Fill moves bytes from a socket into the pipe, which must be empty, at most so many. It returns 0 and no Errno at the
// peer's FIN, but also when a FIN arrived and an urgent byte's mark precedes the remaining bytes; without the FIN, that
// mark causes Again. A small count does not mean that the socket is empty: a pipe is also full when its slots are used up.
func (p *Pipe) Fill(from, most int) (int, Errno) {
	n, e := splice(from, p.w, min(most, pipeBytes))
	p.held += n
	return n, e
}

// Drain moves bytes from the pipe to a socket, as many as its send buffer takes.
func (p *Pipe) Drain(to int) (int, Errno) {
	n, e := splice(p.r, to, p.held)
	p.held -= n
	return n, e
}

func splice(from, to, size int) (int, Errno) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size),
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}
