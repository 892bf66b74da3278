package counts

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A tally is the number of system calls by name.
type tally map[string]int

// uncounted are calls that follow the clock or the scheduler and not the work: the Go runtime parks and interrupts
// threads, its monitor thread sleeps and wakes up, and memory comes and goes. Files that are watched are looked at every
// few seconds.
var uncounted = []string{
	"futex", "nanosleep", "clock_nanosleep", "sched_yield", "getpid", "tgkill", "rt_sigreturn", "restart_syscall",
	"rt_sigprocmask", "sigaltstack", "clone", "clone3", "gettid", "set_robust_list", "rseq", "mmap", "munmap", "madvise",
	"mprotect", "brk", "timer_settime", "timer_create", "timer_delete",
	"newfstatat",
}

// waits are calls that count only if they bring an event: without one they end by a timeout or by a signal of the
// runtime.
var waits = []string{"epoll_pwait", "epoll_pwait2", "epoll_wait"}

// tracedCall finds in a line of strace the call's name, and its result unless the call goes on.
var tracedCall = regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).*?(?:= (\S+)(?: [A-Z].*)?)?\n?$`)

// count counts the calls that a trace shows.
func count(trace []byte) tally {
	calls := tally{}
	for line := range bytes.Lines(trace) {
		m := tracedCall.FindSubmatch(line)
		if m == nil || len(m[2]) == 0 {
			continue // a signal, the end of a thread, or a call that goes on and has another line later
		}
		name, result := string(m[1]), string(m[2])
		if slices.Contains(uncounted, name) || slices.Contains(waits, name) && (result == "0" || result == "-1") {
			continue
		}
		calls[name]++
	}
	return calls
}

func TestCount(t *testing.T) {
	t.Parallel()
	const trace = `7 epoll_pwait(0x5, 0xc000, 0x100, 0x14, 0, 0) = 0x1
7 recvfrom(0x7, 0xc000, 0x10000, 0, 0, 0) = 0x40
7 sendto(0x8, 0xc000, 0x40, 0x4000, 0, 0 <unfinished ...>
6 nanosleep(0x1, 0)      = 0
7 <... sendto resumed>)  = 0x40
7 recvfrom(0x7, 0xc000, 0x10000, 0, 0, 0) = -1 EAGAIN (Resource temporarily unavailable)
7 epoll_pwait(0x5, 0xc000, 0x100, 0x14, 0, 0) = 0
7 epoll_pwait(0x5, 0xc000, 0x100, 0x14, 0, 0) = -1 EINTR (Interrupted system call)
7 --- SIGURG {si_signo=SIGURG} ---
7 epoll_pwait(0x5 <unfinished ...>
`
	expected := tally{"epoll_pwait": 1, "recvfrom": 2, "sendto": 1}
	if got := count([]byte(trace)); !maps.Equal(got, expected) {
		t.Errorf("count finds %v, expected %v", got, expected)
	}
}

// A traced is a balancer whose system calls are written to a file.
type traced struct {
	*harness.Process
	file string
}

// startTraced starts a program under strace.
func startTraced(t testing.TB, c harness.Command) *traced {
	t.Helper()
	p := &traced{file: filepath.Join(t.TempDir(), "calls")}
	// -D: the program, and not strace, is the process that is signalled and looked at. -e raw: nothing but numbers.
	c.Args = append([]string{"-D", "-f", "-q", "-e", "raw=all", "-e", "signal=none", "-o", p.file, c.Path}, c.Args...)
	c.Path = harness.Tool(t, "strace")
	p.Process = harness.Start(t, c)
	return p
}

// length returns the length of the trace so far.
func (p *traced) length(t testing.TB) int64 {
	t.Helper()
	info, err := os.Stat(p.file)
	check(t, err)
	return info.Size()
}

// since counts the calls from an earlier length of the trace on.
func (p *traced) since(t testing.TB, length int64) tally {
	t.Helper()
	trace, err := os.ReadFile(p.file)
	check(t, err)
	return count(trace[length:])
}

// settledLooks is how often in a row all threads must sleep: a look reads one thread after the other, and one may wake
// another behind its back.
const settledLooks = 2

// lookEvery is how often settle looks: a step takes a few hundred microseconds under strace.
const lookEvery = 50 * time.Microsecond

// settle waits until all threads of a process sleep. Whatever woke them has been dealt with then: on loopback, packets
// arrive within the system call that sends them. A thread that strace has stopped does not sleep.
func settle(t testing.TB, pid int) {
	t.Helper()
	deadline := time.Now().Add(harness.Patience)
	for looks := 0; looks < settledLooks; {
		threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
		check(t, err)
		looks++
		for _, thread := range threads {
			if stat, err := os.ReadFile(thread); err == nil && !sleeps(string(stat)) {
				looks = 0
				break
			}
		}
		if looks == 0 {
			time.Sleep(lookEvery)
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is not at rest after %v", pid, harness.Patience)
		}
	}
}

// sleeps reports whether a thread sleeps, by its line in /proc: the state follows the name in brackets (proc(5)).
func sleeps(stat string) bool {
	return strings.HasPrefix(stat[strings.LastIndexByte(stat, ')')+1:], " S ")
}
