package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A cpuReading is the CPU time that some processes have used so far.
type cpuReading struct {
	clock time.Duration // their CPU clocks, in nanoseconds
	stat  time.Duration // utime and stime of /proc/PID/stat, in ticks of 10 ms: the check
}

func (r cpuReading) since(before cpuReading) cpuReading {
	return cpuReading{clock: r.clock - before.clock, stat: r.stat - before.stat}
}

func (r cpuReading) plus(o cpuReading) cpuReading {
	return cpuReading{clock: r.clock + o.clock, stat: r.stat + o.stat}
}

// disagrees reports whether the two measurements of the same CPU time differ by more than rounding to ticks explains,
// for that many processes: then neither is reliable.
func (r cpuReading) disagrees(processes int) bool {
	slack := time.Duration(processes)*3*clockTick + r.clock/50
	return (r.clock - r.stat).Abs() > slack
}

// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 on every architecture Go
// runs on with Linux (proc(5)).
const clockTick = 10 * time.Millisecond

// readCPU adds up the CPU time of the processes, over all of their threads and
// those that have ended.
//
// It asks each process's CPU clock (clock_getcpuclockid(3)). The sum of
// /proc/PID/task/*/schedstat has the same resolution but loses what a thread used
// once it ends; /proc/PID/stat keeps that but counts in ticks of 10 ms.
func readCPU(pids []int) (cpuReading, error) {
	var sum cpuReading
	for _, pid := range pids {
		clock, err := cpuClock(pid)
		if err != nil {
			return cpuReading{}, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		st, err := readStat(pid)
		if err != nil {
			return cpuReading{}, err
		}
		sum.clock += clock
		sum.stat += st.cpu
	}
	return sum, nil
}

// machineCPU returns the CPU time of the whole machine, in ticks. The difference to the three processes' own shows
// whether something else was running.
func machineCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachineStat(string(b))
}

// parseMachineStat reads the first line of /proc/stat (proc(5)): user, nice,
// system, idle, iowait, irq, softirq, steal; guests' time is within user's.
func parseMachineStat(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, field := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(f[field], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

func cpuClock(pid int) (time.Duration, error) {
	// posix-timers.h of the kernel: the complement of the process id, shifted by
	// three, and 2 for the scheduler's own nanoseconds (CPUCLOCK_SCHED)
	id := ^pid<<3 | 2
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(int32(id)), uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("clock_gettime", errno)
	}
	return time.Duration(ts.Nano()), nil
}

// A procStat has the needed fields of /proc/PID/stat.
type procStat struct {
	parent   int
	cpu      time.Duration // utime and stime
	children time.Duration // cutime and cstime: of the children that it has waited for
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	st, err := parseStat(string(b))
	if err != nil {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return st, nil
}

// parseStat reads a line of /proc/PID/stat. The second field is the program's
// name in parentheses and may hold spaces and parentheses of its own.
func parseStat(line string) (procStat, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return procStat{}, fmt.Errorf("no program name in %q", line)
	}
	f := strings.Fields(line[end+1:]) // f[0] is field 3, the state
	if len(f) < 15 {
		return procStat{}, fmt.Errorf("%d fields after the name, want 15 or more", len(f))
	}
	var n [5]int64
	for i, field := range []int{1, 11, 12, 13, 14} { // ppid, utime, stime, cutime, cstime
		v, err := strconv.ParseInt(f[field], 10, 64)
		if err != nil {
			return procStat{}, err
		}
		n[i] = v
	}
	return procStat{
		parent:   int(n[0]),
		cpu:      time.Duration(n[1]+n[2]) * clockTick,
		children: time.Duration(n[3]+n[4]) * clockTick,
	}, nil
}
