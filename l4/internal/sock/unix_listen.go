package sock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A UnixSocket is the socket of a listener in the Unix domain. The zero value is none. Equal values are the same socket.
type UnixSocket struct {
	Path  string      // absolute, up to MaxUnixListener bytes
	Mode  fs.FileMode // who may connect: the write permission counts (unix(7))
	Owner string      // a user's name or number; "" = that of the process
	Group string      // a group's name or number; "" = that of the process, or of the folder
}

// beside is the end of the name that a socket has until Publish.
const beside = ".new"

// MaxUnixListener is the longest path of a listener: it has another name at first.
const MaxUnixListener = maxPath - len(beside)

// ErrNoUnixSocket is wrapped by the error of ListenUnix when there is something else at the path.
var ErrNoUnixSocket = errors.New("there is a file that is no Unix socket")

// A UnixFile is the file of a listener's socket.
type UnixFile struct {
	path string
	id   os.FileInfo

	published bool // it had its path when it was taken over
}

// ListenUnix opens a listening socket for u with a name beside its path, which Publish replaces. A socket at the path on
// which nobody listens is no mistake. If somebody does, the error is EADDRINUSE, unless ours says that this process does.
func ListenUnix(u UnixSocket, backlog int, ours bool) (int, *UnixFile, error) {
	fd, f, err := listenUnix(u, backlog, ours)
	if err != nil {
		return -1, nil, fmt.Errorf("listen on unix:%s: %w", u.Path, err)
	}
	return fd, f, nil
}

func listenUnix(u UnixSocket, backlog int, ours bool) (int, *UnixFile, error) {
	if !ours {
		if err := checkFree(u.Path); err != nil {
			return -1, nil, err
		}
	}
	owner, group, err := u.ids()
	if err != nil {
		return -1, nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	f := &UnixFile{path: u.Path}
	name := u.Path + beside
	_ = os.Remove(name) // of a process that did not get to Publish
	if err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: name})); err != nil {
		Close(fd)
		return -1, nil, err
	}
	// Nobody can connect before listen, so nobody comes before the permissions are right.
	if err = os.Chmod(name, u.Mode); err == nil && (owner >= 0 || group >= 0) {
		err = os.Lchown(name, owner, group)
	}
	if err == nil {
		f.id, err = os.Lstat(name)
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		_ = os.Remove(name)
		Close(fd)
		return -1, nil, err
	}
	return fd, f, nil
}

// checkFree returns an error unless there is nothing at a path, or a socket on which nobody listens.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return ErrNoUnixSocket
	}
	fd, e := ConnectUnix(path)
	switch e {
	case ConnRefused, unix.ENOENT:
		return nil
	case 0:
		Close(fd)
	}
	return unix.EADDRINUSE
}

// ids returns the numbers of Owner and Group; -1 for none.
func (u UnixSocket) ids() (owner, group int, err error) {
	number := func(name string, look func(string) (string, error)) (int, error) {
		if name == "" {
			return -1, nil
		}
		if n, err := strconv.ParseUint(name, 10, 31); err == nil {
			return int(n), nil
		}
		text, err := look(name)
		if err != nil {
			return -1, err
		}
		return strconv.Atoi(text)
	}
	if owner, err = number(u.Owner, func(name string) (string, error) {
		found, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return found.Uid, nil
	}); err != nil {
		return -1, -1, err
	}
	group, err = number(u.Group, func(name string) (string, error) {
		found, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return found.Gid, nil
	})
	return owner, group, err
}

// Publish gives the socket its path. From then on clients find it there, and not what was there before.
func (f *UnixFile) Publish() error {
	if f.published {
		return nil
	}
	return os.Rename(f.path+beside, f.path)
}

// Withdraw removes the file of the socket, if it is still there. Clients that have connected are still waiting.
func (f *UnixFile) Withdraw() {
	for _, name := range [...]string{f.path, f.path + beside} {
		if now, err := os.Lstat(name); err == nil && os.SameFile(f.id, now) {
			_ = os.Remove(name)
		}
	}
}

// TuneUnix sets the backlog of a listening socket, for clients that come from now on.
func TuneUnix(fd, backlog int) error { return os.NewSyscallError("listen", unix.Listen(fd, backlog)) }

// Credentials are the process at the other end of a connection of the Unix domain, as it was when it connected. The zero
// value is none.
type Credentials struct{ PID, UID, GID int32 }

// PeerCredentials returns the process that has connected (SO_PEERCRED). A process of another PID namespace has the
// number 0.
func PeerCredentials(fd int) (Credentials, Errno) {
	var c unix.Ucred
	size := uint32(unsafe.Sizeof(c))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERCRED,
		uintptr(unsafe.Pointer(&c)), uintptr(unsafe.Pointer(&size)), 0)
	return Credentials{PID: c.Pid, UID: int32(c.Uid), GID: int32(c.Gid)}, e
}

// AppendTo appends the credentials as the address of a client: unix:pid=1,uid=2.
func (c Credentials) AppendTo(b []byte) []byte {
	b = strconv.AppendInt(append(b, "unix:pid="...), int64(c.PID), 10)
	return strconv.AppendUint(append(b, ",uid="...), uint64(uint32(c.UID)), 10)
}

// String returns the credentials as AppendTo has them.
func (c Credentials) String() string { return string(c.AppendTo(nil)) }

// IsOwn reports whether the process at the other end is this one.
func (c Credentials) IsOwn() bool { return int(c.PID) == syscall.Getpid() }
