//go:build soak

package packaging

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSoakRelease makes the release of both architectures as `make release` does, twice, the second time in a copy of
// the checkout elsewhere: all files are there, for the right machines, and the same.
func TestSoakRelease(t *testing.T) {
	sums := func(checkout string) string {
		t.Helper()
		build := t.TempDir()
		cmd := exec.Command("make", "release", "VERSION=1.0.0", "BUILD="+build)
		cmd.Dir = checkout
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make release: %v\n%s", err, output)
		}
		for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
			binary, err := elf.Open(filepath.Join(build, "linux-"+arch, "limeload-l4"))
			check(t, err)
			if binary.Machine != machine || binary.Section(".interp") != nil {
				t.Errorf("the binary for %s is for %v, or not static", arch, binary.Machine)
			}
			check(t, binary.Close())
		}
		deb := filepath.Join(build, "release", "limeload-l4_1.0.0-1_arm64.deb")
		if got := tool(t, "dpkg-deb", "--field", deb, "Architecture"); got != "arm64" {
			t.Errorf("the package for arm64 is for %s", got)
		}
		rpm := filepath.Join(build, "release", "limeload-l4-1.0.0-1.aarch64.rpm")
		if got := tool(t, "rpm", "-qp", "--qf", "%{arch}", rpm); got != "aarch64" {
			t.Errorf("the rpm for arm64 is for %s", got)
		}
		return read(t, filepath.Join(build, "release", "SHA256SUMS"))
	}
	here := sums(repository)
	if n := strings.Count(here, "\n"); n != 8 {
		t.Errorf("a release has %d files:\n%s", n, here)
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	check(t, os.Mkdir(elsewhere, 0o755))
	list := exec.Command(harness.Tool(t, "git"), "ls-files")
	list.Dir = repository
	for file := range strings.FieldsSeq(output(t, list)) {
		to := filepath.Join(elsewhere, file)
		check(t, os.MkdirAll(filepath.Dir(to), 0o755))
		info, err := os.Stat(filepath.Join(repository, file))
		check(t, err)
		check(t, os.WriteFile(to, []byte(read(t, filepath.Join(repository, file))), info.Mode()))
	}
	if there := sums(elsewhere); there != here {
		t.Errorf("a copy of the checkout gives another release:\n%s\n%s", here, there)
	}
}
