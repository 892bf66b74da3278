package harness

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// shellMark begins the line that a Shell prints after each command.
const shellMark = "limeload-test-mark"

// A Shell is a running bash in a folder of its own, as the terminal of somebody who follows a document. It has the
// balancer and PostgreSQL's programs in its PATH. It does not run as root, because database servers refuse that. Only
// the test's own goroutine may call its methods. At its end it kills all processes that have their working folder in
// its folder.
type Shell struct {
	*Process
	Dir string

	marks int // printed so far
	lines int // of standard output, in earlier commands
}

// StartShell starts a shell as the user that Debian's package of a server makes, or as the test's own user.
func StartShell(t testing.TB, user string) *Shell {
	t.Helper()
	dir, owner := serverFolder(t, user)
	s := &Shell{Dir: dir}
	bin := filepath.Join(dir, ".bin") // the folder of the build is not everybody's
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(bin, "limeload-l4")
	if err := os.Link(Binary(t, false), program); err != nil {
		copyProgram(t, Binary(t, false), program)
	}
	path := strings.Join([]string{bin, filepath.Dir(Tool(t, "initdb")), os.Getenv("PATH")}, ":")
	s.Process = Start(t, Command{
		Path: Tool(t, "bash"), Args: []string{"--norc"}, Dir: dir, User: owner, Stdin: true,
		Env: []string{
			"PATH=" + path, "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C", "TZ=UTC", "GORACE=atexit_sleep_ms=50",
		},
	})
	t.Cleanup(func() { s.killAll(t) }) // before the shell's end is waited for: what it has started holds its output open
	return s
}

// copyProgram copies a program to a folder of another file system.
func copyProgram(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(out, in)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// WriteFile writes a file of the shell's folder, which then belongs to the shell's user.
func (s *Shell) WriteFile(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(s.Dir, name)
	err := os.WriteFile(path, []byte(text), 0o644)
	if err == nil && s.cmd.SysProcAttr.Credential != nil {
		err = os.Chown(path, int(s.cmd.SysProcAttr.Credential.Uid), int(s.cmd.SysProcAttr.Credential.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Run runs one command, which may have several lines, and returns its exit code and everything that it printed.
func (s *Shell) Run(t testing.TB, command string) (output string, code int) {
	t.Helper()
	s.marks++
	mark := fmt.Sprintf("%s %d ", shellMark, s.marks)
	s.Say(t, fmt.Sprintf("{ %s\n} 2>&1 </dev/null\nshell_code=$?\necho\necho %s$shell_code", command, mark))
	last, next, found := s.stdout.find(s.lines, Patience, func(line string) bool { return strings.HasPrefix(line, mark) })
	if !found {
		t.Fatalf("the command does not end: %s", command)
	}
	code, err := strconv.Atoi(strings.TrimPrefix(last, mark))
	if err != nil {
		t.Fatal(err)
	}
	output = strings.TrimRight(strings.Join(s.stdout.all()[s.lines:next-1], "\n"), "\n")
	s.lines = next
	return output, code
}

// killAll ends the processes that the shell has left behind, such as servers.
func (s *Shell) killAll(t testing.TB) {
	own := func() (pids []int) {
		folders, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			t.Error(err)
		}
		for _, folder := range folders {
			at, err := os.Readlink(folder)
			if err != nil || at != s.Dir && !strings.HasPrefix(at, s.Dir+"/") {
				continue // it has ended, or is none of ours
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(folder))); err == nil {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	Eventually(t, "the processes of the shell have ended", func() error {
		pids := own()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		if len(pids) > 0 {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
}
