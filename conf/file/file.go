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
func Read(path string, limit int) (data []byte, err error) {
	err = Stream(path, int64(limit), func(from io.Reader) (err error) {
		data, err = io.ReadAll(from)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Stream calls read with the contents of a file that Read would read, and returns its error. Errors of the file are
// *fs.PathError: read gets them from its reader and should return them as they are.
func Stream(path string, limit int64, read func(from io.Reader) error) error {
	// Stat comes before the open, since opening a device may have an effect, as with a watchdog or a tape.
	info, err := os.Stat(path)
	if err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			failed.Op = "open" // the operation that the caller wanted
		}
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	// O_NONBLOCK, since opening a named pipe blocks until it has a writer, and the path may lead to another file by
	// now.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return streamOpened(f, path, limit, read)
}

// streamOpened is Stream for an open file, which may still be of any kind.
func streamOpened(f *os.File, path string, limit int64, read func(from io.Reader) error) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	case info.Size() > limit:
		return tooLarge(path, limit)
	}
	_ = f.SetReadDeadline(time.Now().Add(patience)) // on an error, the file has no deadlines and reads never block
	return read(&bounded{file: f, path: path, limit: limit, left: limit})
}

// A bounded reads a file of which no more than limit bytes may be read. The file may have grown, or be a kernel file
// without a size.
type bounded struct {
	file  *os.File
	path  string
	limit int64
	left  int64
}

func (b *bounded) Read(into []byte) (int, error) {
	if int64(len(into)) > b.left+1 {
		into = into[:b.left+1]
	}
	n, err := b.file.Read(into)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		return 0, tooLarge(b.path, b.limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &fs.PathError{Op: "read", Path: b.path, Err: fmt.Errorf("%w: reading it waits for something", ErrNotRegular)}
	}
	return n, err
}

func tooLarge(path string, limit int64) error {
	return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)}
}
