// Package file reads the files that a configuration names: passwords, tokens, certificates, lists of backends, the
// state.
//
// Whoever writes such a path may have meant something else, or may want to do harm, and the reader is a process that
// many depend on. So it reads regular files only, no more of them than the caller allows, and never waits for one. It
// knows nothing of what is in a file; its errors name the path, and never quote the contents. Any goroutine may call
// it.
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
	// ErrNotRegular is wrapped by the error of a path that leads to a folder, a device, a pipe or a socket.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge is wrapped by the error of a file with more bytes than the caller allows.
	ErrTooLarge = errors.New("the file is too large")
)

// patience is how long a file may have nothing to give. Regular files on a disk always have; some of those that the
// kernel makes up (/proc/kmsg) are called regular and wait for news.
const patience = time.Second

// Read returns the contents of the regular file at path, which has at most limit bytes. A symbolic link to a regular
// file is as good as the file: Kubernetes puts its secrets there. The error is an *fs.PathError.
func Read(path string, limit int) ([]byte, error) {
	// Looked at before it is opened: to open a device may have an effect, as with a watchdog or a tape.
	info, err := os.Stat(path)
	if err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			failed.Op = "open" // what was wanted
		}
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	// O_NONBLOCK, since to open a named pipe waits for its writer, and the path may lead to another file by now.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readOpened(f, path, limit)
}

// readOpened reads a file that may be of any kind after all.
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
	_ = f.SetReadDeadline(time.Now().Add(patience)) // an error says that reading it never waits
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: reading it waits for something",
			ErrNotRegular)}
	case err != nil:
		return nil, err
	case len(data) > limit: // of a file that grows, or that the kernel makes up and gives no size
		return nil, tooLarge(path, limit)
	}
	return data, nil
}

func tooLarge(path string, limit int) error {
	return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)}
}
