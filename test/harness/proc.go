package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ is 100 on every Linux that Go runs on
// (proc_pid_stat(5)).
const clockTick = 10 * time.Millisecond

// Descriptors has the open descriptors of a process. Sockets has the kernel's names ("socket:[inode]"), each unique
// while the machine runs.
type Descriptors struct {
	Sockets map[string]bool
	Pipes   int
	Others  int
}

// Total returns the number of all open descriptors.
func (d Descriptors) Total() int { return len(d.Sockets) + d.Pipes + d.Others }

// leaks returns an error that names what is open now and was not at the start. Pipes do not count, since those for
// splice are kept for reuse.
func (d Descriptors) leaks(start Descriptors) error {
	var more []string
	for socket := range d.Sockets {
		if !start.Sockets[socket] {
			more = append(more, socket)
		}
	}
	if len(more) > 0 {
		return fmt.Errorf("%d sockets more: %s", len(more), tail(more))
	}
	if d.Others > start.Others {
		return fmt.Errorf("%d descriptors that are neither sockets nor pipes, %d at the start", d.Others, start.Others)
	}
	return nil
}

// CPUTime returns the process's CPU time so far, user and system time of all threads, in steps of clockTick.
func (p *Process) CPUTime(t testing.TB) time.Duration {
	t.Helper()
	stat := p.read(t, "stat")
	// the second field is the program's name in brackets, which may contain anything; utime and stime are the 14th and
	// 15th
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(string(field))
		if err != nil {
			t.Fatalf("CPU time of %s: %v", p.name, err)
		}
		ticks += time.Duration(n)
	}
	return ticks * clockTick
}

// AnonMemory returns RssAnon, the process's own resident memory: heap and stacks, without program text.
func (p *Process) AnonMemory(t testing.TB) int64 {
	t.Helper()
	for line := range strings.Lines(string(p.read(t, "status"))) {
		if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
			var kib int64
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
				t.Fatalf("RssAnon of %s: %v", p.name, err)
			}
			return kib << 10
		}
	}
	t.Fatalf("status of %s has no RssAnon", p.name)
	return 0
}

// Descriptors returns the descriptors that the process has open now.
func (p *Process) Descriptors(t testing.TB) Descriptors {
	t.Helper()
	d := Descriptors{Sockets: map[string]bool{}}
	dir := filepath.Join("/proc", strconv.Itoa(p.PID()), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("descriptors of %s: %v", p.name, err)
	}
	for _, entry := range entries {
		name, err := os.Readlink(filepath.Join(dir, entry.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed since the folder was read
		case err != nil:
			t.Fatalf("descriptors of %s: %v", p.name, err)
		case strings.HasPrefix(name, "socket:"):
			d.Sockets[name] = true
		case strings.HasPrefix(name, "pipe:"):
			d.Pipes++
		default:
			d.Others++
		}
	}
	return d
}

func (p *Process) read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), file))
	if err != nil {
		t.Fatalf("read of %s: %v", p.name, err)
	}
	return b
}
