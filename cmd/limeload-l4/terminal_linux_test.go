package main

import (
	"cmp"
	"fmt"
	"io"
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

// TestScreen: lines in a pipe have any length, unless COLUMNS says otherwise, and there are colours on a terminal only.
func TestScreen(t *testing.T) {
	terminal := openTerminal(t, 72)
	for _, test := range []struct {
		name     string
		terminal bool
		env      map[string]string
		wide     bool
		colour   string
		want     screen
	}{
		{"terminal", true, nil, false, "auto", screen{72, true}},
		{"no colours", true, map[string]string{"NO_COLOR": "1"}, false, "auto", screen{72, false}},
		{"colours on request", true, map[string]string{"NO_COLOR": "1"}, false, "always", screen{72, true}},
		{"dumb terminal", true, map[string]string{"TERM": "dumb"}, false, "auto", screen{72, false}},
		{"no colours on request", true, nil, false, "never", screen{72, false}},
		{"wide", true, nil, true, "auto", screen{0, true}},
		{"terminal and COLUMNS", true, map[string]string{"COLUMNS": "90"}, false, "auto", screen{72, true}},
		{"pipe", false, nil, false, "auto", screen{}},
		{"watch", false, map[string]string{"COLUMNS": "90"}, false, "always", screen{90, true}},
		{"narrow", false, map[string]string{"COLUMNS": "3"}, false, "auto", screen{leastWidth, false}},
		{"nonsense", false, map[string]string{"COLUMNS": "-3"}, false, "auto", screen{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"NO_COLOR", "COLUMNS"} {
				t.Setenv(name, test.env[name])
			}
			t.Setenv("TERM", cmp.Or(test.env["TERM"], "xterm"))
			var out io.Writer = new(strings.Builder)
			if test.terminal {
				out = terminal
			}
			if got, err := screenOf(out).with(test.wide, test.colour); err != nil || got != test.want {
				t.Errorf("%+v, %v, want %+v", got, err, test.want)
			}
		})
	}
	if _, err := (screen{}).with(false, "blue"); exitCode(err) != exitUsage {
		t.Errorf("--color blue: %v", err)
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
