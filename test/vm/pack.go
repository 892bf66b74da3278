package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// alwaysPacked are small files that programs look at; those that this machine lacks are left out.
var alwaysPacked = []string{
	"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ssl/openssl.cnf", "/usr/lib/ssl/openssl.cnf",
	"/usr/share/zoneinfo/UTC",
}

// pack writes the archive that the machine boots with: the kernel's modules, busybox, the program, its current folder's
// testdata, what the options name, and the script that the kernel starts.
func pack(path string, k kernel, o options) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buffered := bufio.NewWriterSize(file, 1<<20)
	p := packer{archive: newArchive(buffered)}
	if err := p.all(k, o); err != nil {
		return err
	}
	if err := p.archive.close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return file.Close()
}

// A packer adds programs with their libraries to an archive.
type packer struct{ archive *archive }

func (p packer) all(k kernel, o options) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	var load []string
	for _, module := range k.modules {
		inside := "/modules/" + filepath.Base(module)
		if err := p.archive.file(inside, module); err != nil {
			return err
		}
		load = append(load, "insmod "+inside)
	}
	program, err := filepath.Abs(o.program[0])
	if err != nil {
		return err
	}
	for _, path := range append([]string{program}, o.pack...) {
		if err := p.add(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, path := range append([]string{filepath.Join(dir, "testdata")}, alwaysPacked...) {
		if _, err := os.Stat(path); err == nil {
			if err := p.add(path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	if err := p.busybox(); err != nil {
		return err
	}
	for _, path := range []string{dir, "/dev", "/proc", "/sys", "/tmp", "/run", "/root"} {
		if err := p.archive.folder(path); err != nil {
			return err
		}
	}
	return p.archive.text("/init", script(load, dir, append([]string{program}, o.program[1:]...)), 0o755)
}

// add adds a program in PATH, a file or a folder, and the libraries of all programs among them.
func (p packer) add(path string) error {
	if !strings.Contains(path, "/") {
		found, err := look(path)
		if err != nil {
			return err
		}
		path = found
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return p.file(path)
	}
	return filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return nil // a socket, or a link to a folder or to nothing
		}
		return p.file(path)
	})
}

// look finds a program in PATH, or in a folder of programs for administrators, which a user's PATH lacks.
func look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("%w: `make tools` installs what the tests need", err)
}

// file adds a file and, if it is a program, its libraries.
func (p packer) file(path string) error {
	if p.archive.has(path) {
		return nil
	}
	if err := p.archive.file(path, path); err != nil {
		return err
	}
	found, err := libraries(path)
	if err != nil {
		return err
	}
	for _, library := range found {
		if err := p.archive.file(library, library); err != nil {
			return err
		}
	}
	return nil
}

// libraries returns the paths of the shared libraries that a file needs, as ldd names them; there are none if it is no
// program or a static one.
func libraries(path string) ([]string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	if needed, err := file.ImportedLibraries(); err != nil || len(needed) == 0 {
		return nil, nil
	}
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", path, err)
	}
	var found []string
	for line := range bytes.Lines(out) {
		for word := range strings.FieldsSeq(string(line)) {
			if strings.HasPrefix(word, "/") {
				found = append(found, word)
			}
		}
		if bytes.Contains(line, []byte("not found")) {
			return nil, fmt.Errorf("ldd %s: %s", path, bytes.TrimSpace(line))
		}
	}
	return found, nil
}

// busybox adds busybox, and a link to it for each of its commands that the archive does not have.
func (p packer) busybox() error {
	const inside = "/bin/busybox"
	busybox, err := look("busybox")
	if err != nil {
		return err
	}
	if err := p.archive.file(inside, busybox); err != nil {
		return err
	}
	shared, err := libraries(busybox)
	if err != nil {
		return err
	}
	for _, library := range shared {
		if err := p.archive.file(library, library); err != nil {
			return err
		}
	}
	commands, err := exec.Command(busybox, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("%s --list-full: %w", busybox, err)
	}
	for _, command := range strings.Fields(string(commands)) {
		if err := p.archive.link("/"+command, inside); err != nil {
			return err
		}
	}
	return nil
}

// script is what the kernel starts as its first process. Its output goes to the first serial line, the program's to the
// second, and the program's exit code to the third.
func script(load []string, dir string, program []string) string {
	var b strings.Builder
	b.WriteString("#!/bin/busybox sh\n")
	for _, kind := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		fmt.Fprintf(&b, "mount -t %s %s %s\n", kind[0], kind[0], kind[1])
	}
	b.WriteString("mkdir -p /dev/shm /dev/pts\nmount -t tmpfs tmpfs /dev/shm\nmount -t devpts devpts /dev/pts\n" +
		"ln -s /proc/self/fd /dev/fd\nchmod 1777 /tmp /dev/shm\nip link set lo up\nstty -F /dev/ttyS1 raw\n" +
		"export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" +
		"ulimit -n 65536\n")
	b.WriteString(strings.Join(load, "\n") + "\n")
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "LIMELOAD_") {
			fmt.Fprintf(&b, "export %s\n", quote(variable))
		}
	}
	quoted := make([]string, len(program))
	for i, argument := range program {
		quoted[i] = quote(argument)
	}
	fmt.Fprintf(&b, "cd %s\n%s </dev/null >/dev/ttyS1 2>&1\necho $? >/dev/ttyS2\nreboot -f\n", quote(dir),
		strings.Join(quoted, " "))
	return b.String()
}

// quote writes an argument for the shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
