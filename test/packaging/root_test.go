package packaging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A root is a small Debian system in a folder. Programs run in it by chroot, with the network of the machine.
type root struct{ path string }

// rootArchive returns the archive of a fresh Debian root, of the version of Debian that this machine has. It stays in
// build, since it takes half a minute and the network to make one.
var rootArchive = sync.OnceValues(func() (string, error) {
	archive, err := filepath.Abs(filepath.Join(repository, "build", "debian-root.tar"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return "", err
	}
	// what the packages depend on; passwd is for the rpm
	const packages = "systemd-standalone-sysusers,systemd-standalone-tmpfiles,passwd"
	script := `set -e
. /etc/os-release
site=$(apt-get indextargets --format '$(SITE)' "Codename: $VERSION_CODENAME" | head -n 1)
mmdebstrap --quiet --format=tar --variant=essential --include=$2 "$VERSION_CODENAME" "$1.new" \
	"deb $site $VERSION_CODENAME main"
mv "$1.new" "$1"`
	return archive, run("sh", "-c", script, "sh", archive, packages)
})

// run runs a program of this machine, which must succeed.
func run(name string, args ...string) error {
	if output, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, output)
	}
	return nil
}

// newRoot unpacks a Debian root.
func newRoot(t *testing.T) root {
	t.Helper()
	needRoot(t)
	harness.Tool(t, "mmdebstrap")
	r := root{t.TempDir()}
	check(t, os.Mkdir(r.in("proc"), 0o755))
	if err := syscall.Mount("proc", r.in("proc"), "proc", 0, ""); err != nil {
		t.Skipf("this test needs a machine where root may mount: mount of /proc: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(r.in("proc"), 0)) })
	t.Cleanup(func() { r.kill(t) }) // before that
	archive, err := rootArchive()
	check(t, err)
	check(t, os.Chmod(r.path, 0o755))
	check(t, os.Chmod(filepath.Dir(r.path), 0o755)) // the balancer's user comes through here
	check(t, run("tar", "-C", r.path, "--numeric-owner", "--exclude", "./proc", "-xf", archive))
	return r
}

// in returns the path outside of a path in the root.
func (r root) in(path string) string { return filepath.Join(r.path, path) }

// command returns a program in the root, as root.
func (r root) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(harness.Tool(t, "chroot"), append([]string{r.path}, args...)...)
	cmd.Env = []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

// run runs a program in the root, which must succeed, and returns both its outputs.
func (r root) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := r.command(t, args...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// write writes a file of root's.
func (r root) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	check(t, os.WriteFile(r.in(path), []byte(text), mode))
	check(t, os.Chmod(r.in(path), mode))
}

// processes returns the ids of the processes that have this root.
func (r root) processes(t *testing.T) (ids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/root")
	check(t, err)
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == r.path {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			check(t, err)
			ids = append(ids, id)
		}
	}
	return ids
}

// kill ends the processes that have this root, and waits for their end.
func (r root) kill(t *testing.T) {
	t.Helper()
	for _, id := range r.processes(t) {
		_ = syscall.Kill(id, syscall.SIGKILL) // it may have ended by itself
	}
	harness.Eventually(t, "no process has the root", func() error {
		if ids := r.processes(t); len(ids) > 0 {
			return fmt.Errorf("%v have", ids)
		}
		return nil
	})
}

// owner returns user, group and mode of a file, as in "root:limeload 0640".
func (r root) owner(t *testing.T, path string) string {
	t.Helper()
	return strings.TrimSpace(r.run(t, "stat", "-c", "%U:%G 0%a", path))
}

// files returns all paths in the root with their owners, except for what dpkg, rpm and the kernel keep, and backups of
// the list of users.
func (r root) files(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	check(t, filepath.WalkDir(r.path, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, r.path)
		switch name {
		case "/proc", "/var/lib/dpkg", "/var/lib/rpm", "/var/cache", "/tmp":
			return filepath.SkipDir
		case "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock", "/var/log/dpkg.log":
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		of := info.Sys().(*syscall.Stat_t)
		found[name] = fmt.Sprintf("%d:%d", of.Uid, of.Gid)
		return nil
	}))
	return found
}

// leftovers returns the paths that are there now and were not before.
func (r root) leftovers(t *testing.T, before map[string]string) map[string]string {
	t.Helper()
	now := r.files(t)
	for path := range before {
		delete(now, path)
	}
	return now
}
