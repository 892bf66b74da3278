// Package file reads the files that a configuration names: passwords, tokens, certificates, lists of backends, the
// state.
//
// Such a path may be wrong or malicious, and many depend on the process that reads it. So the package reads only
// regular files, at most as many bytes as the caller allows, and never blocks. It does not interpret the contents; its
// errors name the path and never quote the contents. Any goroutine may call it.
package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

var (
	// ErrNotRegular is wrapped by the error for a path to a folder, a device, a pipe or a socket.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge is wrapped by the error for a file with more bytes than the caller allows.
	ErrTooLarge = errors.New("the file is too large")
)

// patience bounds how long a read may block. Regular files on a disk never block, but some files of the kernel that
// count as regular (/proc/kmsg) wait for data.
const patience = time.Second

// Read returns the contents of the regular file at path, which has at most limit bytes. A symbolic link to a regular
// file is allowed, since Kubernetes mounts secrets as such links. The error is an *fs.PathError.
func Read(path string, limit int) ([]byte, error) {
	// Stat comes before the open, since opening a device may have an effect, as with a watchdog or a tape.
	info, err := os.Stat(path)
	if err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			failed.Op = "open" // the operation that the caller wanted
		}
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	// O_NONBLOCK, since opening a named pipe blocks until it has a writer, and the path may lead to another file by
	// now.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readOpened(f, path, limit)
}

// readOpened reads an open file, which may still be of any kind.
func readOpened(f *os.File, path string, limit int) ([]byte, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	case info.Size() > int64(limit):
		return nil, tooLarge(path, limit)
	}
	_ = f.SetReadDeadline(time.Now().Add(patience)) // on an error, the file has no deadlines and reads never block
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: reading it waits for something",
			ErrNotRegular)}
	case err != nil:
		return nil, err
	case len(data) > limit: // the file has grown, or it is a kernel file without a size
		return nil, tooLarge(path, limit)
	}
	return data, nil
}

func tooLarge(path string, limit int) error {
	return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)}
}
