package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// sh returns a check that runs a shell script.
func sh(script string, args ...string) Exec {
	return Exec{Argv: append([]string{"/bin/sh", "-c", script, "sh"}, args...)}
}

// descriptors returns how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(files)
}

// wantGone waits until a process has ended, or is a zombie with another parent. A script wrote the id of the process to
// file.
func wantGone(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	harness.Eventually(t, "the process that the script started is dead", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return fmt.Errorf("it is %s, %w", stat, err)
	})
}

func TestExecSuccess(t *testing.T) {
	to := target("db/b1")
	for script, want := range map[string]string{
		"exit 0":                             "exit status 0",
		"echo fine":                          `"fine"`,
		"echo one; echo two >&2; echo; echo": `"two"`,
		"printf 'no end of line'":            `"no end of line"`,
		"cat; echo empty input":              `"empty input"`,
	} {
		got, err := sh(script).Check(deadlineIn(t, patience), to)
		if err != nil || got.Detail != want || got.Latency <= 0 {
			t.Errorf("%s: %+v, %v, want detail %s", script, got, err, want)
		}
	}
	if _, err := (Exec{Argv: []string{"true"}}).Check(t.Context(), to); err != nil { // from PATH, without a deadline
		t.Error(err)
	}
}

func TestExecFailure(t *testing.T) {
	for script, want := range map[string]string{
		"exit 3":                                  "exit status 3",
		"echo disk full; exit 1":                  `exit status 1: "disk full"`,
		"printf 'a\\0\\n\\033[31mb\\n'; exit 2":   `exit status 2: "\\x1b\[31mb"`,
		"yes | head -c 300 | tr -d '\\n'; exit 9": `exit status 9: "y{100}"...`,
		"kill -9 $$":                              `killed by signal 9 \(killed\)`,
		"echo dying; kill -s SEGV $$":             `killed by signal 11 \(segmentation fault\): "dying"`,
	} {
		_, err := sh(script).Check(deadlineIn(t, patience), target("db/b1"))
		failsWith(t, err, want)
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Errorf("%s: error %v does not wrap the exit status", script, err)
		}
	}
}

func TestExecEnvironment(t *testing.T) {
	t.Setenv("SECRET", "of the balancer")
	for _, name := range []string{"b1", "a/b"} {
		for addr, host := range map[string]string{"10.0.0.1:5432": "10.0.0.1", "[fe80::1%eth0]:80": "fe80::1%eth0"} {
			to := targetAt(addr)
			to.Group, to.Name = "db", name
			c := sh(`env | sort > "$1"`, filepath.Join(t.TempDir(), "env"))
			c.Dir = t.TempDir()
			c.Env = []string{"EXTRA=a b", "LIMELOAD_HOST=mine"}
			_, err := c.Check(deadlineIn(t, patience), to)
			must(t, err)
			b, err := os.ReadFile(c.Argv[len(c.Argv)-1])
			must(t, err)
			got := strings.Split(strings.TrimSpace(string(b)), "\n")
			got = slices.DeleteFunc(got, func(s string) bool { // of the shell itself
				return strings.HasPrefix(s, "_=") || strings.HasPrefix(s, "SHLVL=") || strings.HasPrefix(s, "OLDPWD=")
			})
			wanted := []string{
				"EXTRA=a b", "LIMELOAD_ADDRESS=" + addr, "LIMELOAD_BACKEND=" + name, "LIMELOAD_HOST=" + host,
				"LIMELOAD_PORT=" + strconv.Itoa(int(to.Addr.Port())), "LIMELOAD_TARGET=db/" + name,
				"PATH=" + os.Getenv("PATH"), "PWD=" + c.Dir,
			}
			if !slices.Equal(got, wanted) {
				t.Errorf("the environment is %q, want %q", got, wanted)
			}
		}
	}
	t.Setenv("PATH", "")
	if env := (Exec{}).environment(target("a")); env[0] != "PATH="+plainPath {
		t.Errorf("the environment without PATH begins with %s", env[0])
	}
}

func TestExecTimesOut(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	open := descriptors(t)
	start := time.Now()
	_, err := sh(`sleep 1000 & echo $! >"$1.new" && mv "$1.new" "$1"; echo waiting; trap "" TERM; wait`, pid).
		Check(deadlineIn(t, time.Second), target("db/b1"))
	failsWith(t, err, `timed out after (1s|\d+ms): "waiting"`, context.DeadlineExceeded)
	if took := time.Since(start); took < time.Second || took > patience/2 {
		t.Errorf("the check took %v, want 1s", took)
	}
	wantGone(t, pid)
	if now := descriptors(t); now > open {
		t.Errorf("%d files are open, before the check %d", now, open)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(hurry, cancel)
	_, err = sh("sleep 1000").Check(ctx, target("db/b1"))
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
	_, err = sh("exit 1").Check(ctx, target("db/b1"))
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
}

func TestExecEndlessOutput(t *testing.T) {
	_, err := sh("yes 'all is well'").Check(deadlineIn(t, time.Second), target("db/b1"))
	failsWith(t, err, `timed out after (1s|\d+ms): "a?l{0,2} ?i?s? ?w?e?l*"`)
	got, err := sh("head -c 3000000 /dev/zero; echo; echo well").Check(deadlineIn(t, patience), target("db/b1"))
	if err != nil || got.Detail != `"well"` {
		t.Errorf("after 3 MB of output: %+v, %v", got, err)
	}
}

// TestExecLeftovers runs scripts that end and leave processes that keep the output open.
func TestExecLeftovers(t *testing.T) {
	for name, script := range map[string]string{
		"in the group": `sleep 1000 & echo $! >"$1"; echo done`,
		"a daemon":     `setsid sh -c 'echo $$ >"$1.new" && mv "$1.new" "$1"; exec sleep 1000' sh "$1" & while ! test -e "$1"; do :; done; echo done`,
	} {
		t.Run(name, func(t *testing.T) {
			pid := filepath.Join(t.TempDir(), "pid")
			start := time.Now()
			got, err := sh(script, pid).Check(deadlineIn(t, patience), target("db/b1"))
			if err != nil || got.Detail != `"done"` {
				t.Errorf("%+v, %v, want it done", got, err)
			}
			if took := time.Since(start); took > patience/2 {
				t.Errorf("the check took %v", took)
			}
			if name == "a daemon" { // which is its own master
				b, err := os.ReadFile(pid)
				must(t, err)
				n, err := strconv.Atoi(strings.TrimSpace(string(b)))
				must(t, err)
				must(t, syscall.Kill(n, syscall.SIGKILL))
			}
			wantGone(t, pid)
		})
	}
}

func TestExecCannotRun(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	must(t, os.WriteFile(text, []byte("just text\n"), 0o600))
	noInterpreter := filepath.Join(dir, "script")
	must(t, os.WriteFile(noInterpreter, []byte("#!/nonexistent\n"), 0o700))
	notAProgram := filepath.Join(dir, "junk")
	must(t, os.WriteFile(notAProgram, []byte("\x00\x01junk"), 0o700))
	for want, c := range map[string]Exec{
		"cannot check: no program to run":               {},
		"cannot check: no program /nonexistent":         {Argv: []string{"/nonexistent"}},
		"cannot check: no program limeload-nonexistent": {Argv: []string{"limeload-nonexistent"}},
		"cannot check: no program .*/script":            {Argv: []string{noInterpreter}},
		"cannot check: not permitted to run .*/text":    {Argv: []string{text}},
		"cannot check: not permitted to run " + dir:     {Argv: []string{dir}},
		"cannot check: not a program: .*/junk":          {Argv: []string{notAProgram}},
		"cannot check: no folder /nonexistent":          {Argv: []string{"/bin/true"}, Dir: "/nonexistent"},
	} {
		_, err := c.Check(deadlineIn(t, patience), target("db/b1"))
		failsWith(t, err, want, healthcheck.ErrInconclusive)
	}
	_, err := Exec{Argv: []string{"/bin/true", strings.Repeat("x", 1<<20)}}.Check(deadlineIn(t, patience),
		target("db/b1"))
	failsWith(t, err, "cannot check: cannot run /bin/true: .*argument list too long", syscall.E2BIG)
	for _, ours := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY} {
		err := Exec{Argv: []string{"x"}}.startError(&fs.PathError{Op: "fork/exec", Path: "x", Err: ours})
		failsWith(t, err, "cannot check: .*", healthcheck.ErrInconclusive, ours)
	}
}

// TestExecMany runs many programs at once. No descriptors and no children are left.
func TestExecMany(t *testing.T) {
	open := descriptors(t)
	var checks sync.WaitGroup
	for i := range 50 {
		checks.Go(func() {
			script, want := "echo fine", ""
			switch i % 3 {
			case 1:
				script, want = "echo ill; exit 4", `exit status 4: "ill"`
			case 2:
				script, want = "sleep 1000 & wait", `timed out after (2|1\.\d+)s`
			}
			d := patience
			if i%3 == 2 {
				d = 2 * time.Second
			}
			_, err := sh(script).Check(deadlineIn(t, d), target("db/b1"))
			if want != "" {
				failsWith(t, err, want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	checks.Wait()
	if now := descriptors(t); now > open {
		t.Errorf("%d files are open, before the checks %d", now, open)
	}
	children, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	for _, file := range children {
		if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
			t.Errorf("there are children left: %s", b)
		}
	}
}

func TestTail(t *testing.T) {
	var kept tail
	for i := range 10_000 {
		kept.add(fmt.Appendf(nil, "line %d\n", i))
		if len(kept.b) > keptOutputBytes || cap(kept.b) > 4*keptOutputBytes {
			t.Fatalf("%d bytes are kept in %d", len(kept.b), cap(kept.b))
		}
	}
	if got := kept.line(); got != `"line 9999"` {
		t.Errorf("the last line is %s", got)
	}
	for text, want := range map[string]string{"": "", " \n\t\n": "", "a": `"a"`, "a\nb \n\n": `"b"`, "a\r\n": `"a"`} {
		kept := tail{[]byte(text)}
		if got := kept.line(); got != want {
			t.Errorf("the last line of %q is %s, want %s", text, got, want)
		}
	}
}
