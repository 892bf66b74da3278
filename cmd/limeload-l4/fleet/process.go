package fleet

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A process says which process of which machine has the name of a node, so that the next one on the same machine need
// not wait for the end of the lease when it has crashed. It is a plain value.
type process struct {
	Machine string `json:"machine,omitempty"` // of the process ID: the boot of the kernel and the namespace; "": not known
	PID     int    `json:"pid,omitempty"`
	Began   uint64 `json:"began,omitempty"` // ticks since the boot: a later process may have the same ID
}

// thisProcess returns the process that runs this program; the zero value where there is no /proc.
func thisProcess() process {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return process{}
	}
	p := process{PID: os.Getpid()}
	began, running := began(p.PID)
	if !running {
		return process{}
	}
	p.Began, p.Machine = began, strings.TrimSpace(string(boot))+" "+namespace
	return p
}

// isDead reports whether the process has ended for certain, as seen from another one.
func (p process) isDead(from process) bool {
	if p.Machine == "" || p.Machine != from.Machine || p.PID <= 0 {
		return false
	}
	if errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH) {
		return true
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(p.PID)); err != nil {
		return false // it is hidden: it is another user's
	}
	began, running := began(p.PID)
	return !running || began != p.Began
}

// began returns when a process began, in ticks since the boot; false if it is not there, or nobody has waited for it.
func began(pid int) (ticks uint64, running bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// proc_pid_stat(5): the second field is the name of the program in brackets, which may have any bytes; the third is
	// the state, and the 22nd the start
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const state, start = 0, 22 - 3
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return 0, false
	}
	ticks, err = strconv.ParseUint(fields[start], 10, 64)
	return ticks, err == nil
}
