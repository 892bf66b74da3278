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
	"syscall"
	"time"
)

// probeTimeout is how long a socket file's owner may take to accept before the file counts as stale. The kernel accepts for a
// process that lives, however busy; only a full queue makes this wait.
const probeTimeout = time.Second

// ListenUnix makes the admin socket at path. It is never open to more than mode allows, not for a moment and whatever the umask,
// and allows all of mode when ListenUnix returns. The folder must exist.
//
// A socket file that nobody answers at is replaced. Where somebody does, or where something else than a socket is, that is
// an error and stays as it is. Closing the listener removes the file if it is still this one's.
func ListenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	unlock, err := lockFolder(ctx, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	l, err := bindUnix(ctx, path, mode)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if err := os.Chmod(path, mode.Perm()); err != nil { // what the umask took away
		l.Close()
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	return l, nil
}

// ListenTCP listens for the API on a TCP address. One that other machines reach needs a token, as Server.Serve does.
func ListenTCP(ctx context.Context, address netip.AddrPort, token string) (net.Listener, error) {
	if token == "" && !address.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("admin address %s: other machines can reach it, and there is no token", address)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address.String())
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", address, err)
	}
	return l, nil
}

// lockFolder keeps a second daemon from replacing the same stale socket at the same time: both would find nobody there, and
// the later one would take the earlier one's socket away. The kernel lets go of the lock when its holder dies.
//
// Whoever may read the folder can hold a lock on it as long as they like. So the wait is short, and after it the
// socket is made without the lock: it guards only against two daemons that start in the same millisecond.
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

// removeStale removes the file at path if it is a socket that nobody answers at.
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
		return nil // its owner removed it
	}
	return fmt.Errorf("whether another process answers there is not known: %w", err)
}

// bindUnix binds and listens with at most mode.
func bindUnix(ctx context.Context, path string, mode fs.FileMode) (*unixListener, error) {
	var failed error
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		err := c.Control(func(fd uintptr) {
			// bind gives the file the mode of the socket's own inode, less the umask. So no umask is to be set, which
			// is the whole process's, and there is no moment between bind and chmod.
			failed = os.NewSyscallError("fchmod", syscall.Fchmod(int(fd), uint32(mode.Perm())))
		})
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // it would remove whatever is there by then
	info, err := os.Lstat(path)
	if err != nil {
		u.Close()
		return nil, err
	}
	return &unixListener{UnixListener: u, path: path, file: info}, nil
}

// A unixListener removes its file when it is closed, if it is still its own.
type unixListener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	once sync.Once
	err  error
}

// Close removes the file first: as long as it answers, nobody else takes its place in between.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.file) {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close())
	})
	return l.err
}
