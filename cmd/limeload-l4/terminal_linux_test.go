package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

func TestTerminalWidth(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if w := terminalWidth(null); w != 0 { // a character device, but not a terminal
		t.Errorf("%s is %d wide", os.DevNull, w)
	}
	if w := terminalWidth(new(strings.Builder)); w != 0 {
		t.Errorf("a buffer is %d wide", w)
	}
	terminal := openTerminal(t, 72)
	if w := terminalWidth(terminal); w != 72 {
		t.Errorf("a terminal of 72 columns is %d wide", w)
	}
	terminal.Close()
	if w := terminalWidth(terminal); w != 0 {
		t.Errorf("a closed terminal is %d wide", w)
	}
}

// openTerminal opens a terminal with so many columns (pts(4)).
func openTerminal(t *testing.T, columns uint16) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	control := func(request uintptr, arg unsafe.Pointer) {
		t.Helper()
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(arg)); errno != 0 {
			t.Fatal(os.NewSyscallError("ioctl", errno))
		}
	}
	var unlock, number int32
	size := [4]uint16{24, columns}
	control(syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	control(syscall.TIOCGPTN, unsafe.Pointer(&number))
	control(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal
}
