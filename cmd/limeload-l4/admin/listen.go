package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// probeTimeout is how long the owner of a socket file may take to accept before the file counts as stale. The kernel
// accepts for any process that lives, however busy it is; only a full queue takes time.
const probeTimeout = time.Second

// ListenUnix opens a Unix socket for a Server at path. At no moment it allows more than mode, whatever the umask is,
// and when ListenUnix returns it allows all of mode. The folder must exist.
//
// A socket file at which nobody answers is replaced. If somebody answers, or if it is not a socket, that is an error,
// and the file stays. Closing the listener removes the file, if it is still the listener's own.
func ListenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	unlock, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := bindUnix(ctx, path, mode)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Chmod(path, mode.Perm()); err != nil { // the umask may have removed bits
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// ListenTCP listens on a TCP address. One that other machines can reach needs a token, as in Server.Serve.
func ListenTCP(ctx context.Context, address netip.AddrPort, token string) (net.Listener, error) {
	if token == "" && !address.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("admin address %s: other machines can reach it, and there is no token", address)
	}
	return listenTCP(ctx, "tcp", "admin", address.String())
}

// ListenMetrics listens on a TCP address for a server of metrics alone, which needs no token. With dualStack, the
// address is [::] and a port, and IPv4 clients come too; otherwise they do not come to an IPv6 address.
func ListenMetrics(ctx context.Context, address netip.AddrPort, dualStack bool) (net.Listener, error) {
	switch {
	case dualStack: // without the host, so that it works on a machine without IPv6
		return listenTCP(ctx, "tcp", "metrics", fmt.Sprintf(":%d", address.Port()))
	case address.Addr().Is6():
		return listenTCP(ctx, "tcp6", "metrics", address.String())
	}
	return listenTCP(ctx, "tcp", "metrics", address.String())
}

func listenTCP(ctx context.Context, network, name, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%s address %s: %w", name, address, err)
	}
	return l, nil
}

// File returns a second descriptor of the socket of l, a listener of ListenUnix, ListenTCP or ListenMetrics. The caller
// closes it; clients come to the socket until both are closed.
func File(l net.Listener) (*os.File, error) { return l.(interface{ File() (*os.File, error) }).File() }

// Duplicate returns a second listener on the TCP socket of l. Each of the two is closed by itself, and a client may
// come to either.
func Duplicate(l net.Listener) (net.Listener, error) {
	f, err := File(l)
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileListener has a descriptor of its own
	return net.FileListener(f)
}

// lockFolder keeps two daemons from replacing the same stale socket at the same time: both would find that nobody
// answers, and the later one would remove the socket of the earlier one. The kernel releases the lock when its holder
// dies.
//
// Everybody who may read the folder can hold a lock on it for as long as they like. So the wait is short, and after it
// the socket is opened without the lock, which only matters for two daemons that start in the same millisecond.
func lockFolder(ctx context.Context, folder string) (unlock func(), err error) {
	const (
		patience = 2 * time.Second
		pause    = 10 * time.Millisecond
	)
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	unlock = func() { f.Close() }
	late := time.NewTimer(patience)
	defer late.Stop()
	retry := time.NewTicker(pause)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock folder %s: %w", folder, os.NewSyscallError("flock", err))
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock folder %s: %w", folder, ctx.Err())
		case <-late.C:
			return unlock, nil
		case <-retry.C:
		}
	}
}

// removeStale removes the file at path, if it is a socket at which nobody answers.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is no socket, and it is left alone")
	}
	d := net.Dialer{Timeout: probeTimeout}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		c.Close()
		return errors.New("another process answers there; is limeload-l4 running already?")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil // its owner has removed it
	}
	return fmt.Errorf("whether another process answers there is not known: %w", err)
}

// bindUnix binds with at most mode, and listens.
func bindUnix(ctx context.Context, path string, mode fs.FileMode) (*unixListener, error) {
	var failed error
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		err := c.Control(func(fd uintptr) {
			// bind gives the file the mode of the socket's inode, less the umask. So the umask, which the whole process
			// shares, need not be set, and there is no moment between bind and chmod.
			failed = os.NewSyscallError("fchmod", syscall.Fchmod(int(fd), uint32(mode.Perm())))
		})
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // it would remove whatever file is there at that time
	info, err := os.Lstat(path)
	if err != nil {
		u.Close()
		return nil, err
	}
	return &unixListener{UnixListener: u, path: path, file: info}, nil
}

// Inherit makes a listener of the descriptor of one that another process has opened with ListenUnix or ListenTCP, and
// owns it, also after an error. For a Unix socket, path and mode are those of ListenUnix; the file is the other
// process's until Own. For TCP path is "".
func Inherit(fd int, path string, mode fs.FileMode) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "admin")
	if f == nil {
		return nil, fmt.Errorf("inherited admin socket: %w", syscall.EBADF)
	}
	defer f.Close() // FileListener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited admin socket: %w", err)
	}
	u, isUnix := l.(*net.UnixListener)
	switch {
	case isUnix != (path != ""):
		l.Close()
		return nil, fmt.Errorf("inherited admin socket: it listens at %s", l.Addr())
	case !isUnix:
		return l, nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		u.Close()
		return nil, fmt.Errorf("inherited admin socket: %w", err)
	}
	inherited := &unixListener{UnixListener: u, path: path, file: info, mode: mode.Perm()}
	inherited.left.Store(true)
	return inherited, nil
}

// Own makes the file of a Unix socket that was inherited this process's: it gets the mode of Inherit, and is removed
// when l is closed. Nothing happens for other listeners. The error is that of the mode.
func Own(l net.Listener) error {
	u, is := l.(*unixListener)
	if !is || !u.left.Swap(false) {
		return nil
	}
	info, err := os.Lstat(u.path)
	if err != nil || !os.SameFile(info, u.file) || info.Mode().Perm() == u.mode {
		return err
	}
	return os.Chmod(u.path, u.mode)
}

// Leave leaves the file of a Unix socket alone when l is closed: another process has inherited the socket.
func Leave(l net.Listener) {
	if u, is := l.(*unixListener); is {
		u.left.Store(true)
	}
}

// A unixListener removes its file when it is closed, if that is still its own.
type unixListener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	mode fs.FileMode // that Own gives the file
	left atomic.Bool // the file is another process's
	once sync.Once
	err  error
}

// Close removes the file first. While the socket still answers, nobody else can take the path in between.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if info, err := os.Lstat(l.path); err == nil && !l.left.Load() && os.SameFile(info, l.file) {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close())
	})
	return l.err
}
