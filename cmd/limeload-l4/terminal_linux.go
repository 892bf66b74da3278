package main

import (
	"io"
	"os"
	"syscall"
	"unsafe"
)

// terminalWidth is how many characters a line of the terminal has that w writes to; 0 if it is none.
func terminalWidth(w io.Writer) int {
	file, is := w.(*os.File)
	if !is {
		return 0
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	var size struct{ rows, columns, xPixels, yPixels uint16 } // struct winsize, ioctl_tty(2)
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	})
	if err != nil || errno != 0 {
		return 0
	}
	return int(size.columns)
}
