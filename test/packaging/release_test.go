package packaging

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// output runs a program to its end, however long that takes on a loaded machine, and returns its output without the
// last newline. Its exit code must be 0.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", strings.Join(cmd.Args, " "), err, stdout, stderr)
	}
	return strings.TrimSuffix(string(stdout), "\n")
}

// tool runs a program of this machine that must succeed, and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(harness.Tool(t, name), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return output(t, cmd)
}

// TestRelease holds that a release is complete, that its checksums are right, and that it can be made again: another
// folder gives the same bytes.
func TestRelease(t *testing.T) {
	t.Parallel()
	folder := first(t, ".")
	entries, err := os.ReadDir(folder)
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{
		"SHA256SUMS", oldRPM, oldDeb, "limeload-l4_1.0.0_linux_amd64.cdx.json", "limeload-l4_1.0.0_linux_amd64.tar.gz",
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("a release has %q, want %q", names, want)
	}
	cmd := exec.Command(harness.Tool(t, "sha256sum"), "--check", "--strict", "SHA256SUMS")
	cmd.Dir = folder
	sums := output(t, cmd)
	if n := strings.Count(sums, ": OK"); n != len(want)-1 {
		t.Errorf("%d checksums: %s", n, sums)
	}
	again, err := release(oldVersion, "amd64", "all")
	check(t, err)
	if read(t, filepath.Join(again, "SHA256SUMS")) != read(t, first(t, "SHA256SUMS")) {
		t.Errorf("the same version differs when it is made again:\n%s\n%s", read(t, filepath.Join(again, "SHA256SUMS")),
			read(t, first(t, "SHA256SUMS")))
	}
}

// unpacked unpacks the tar.gz and returns its folder.
func unpacked(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	tool(t, "tar", "-C", folder, "-xzf", first(t, "limeload-l4_1.0.0_linux_amd64.tar.gz"))
	return filepath.Join(folder, "limeload-l4_1.0.0_linux_amd64")
}

// TestArchive runs the program of the tar.gz: it is static, knows its version, and accepts its configuration.
func TestArchive(t *testing.T) {
	t.Parallel()
	folder := unpacked(t)
	program := filepath.Join(folder, "limeload-l4")
	binary, err := elf.Open(program)
	check(t, err)
	defer binary.Close()
	if libraries, err := binary.ImportedLibraries(); err != nil || len(libraries) > 0 || binary.Section(".interp") != nil {
		t.Errorf("the binary needs %v and is not static: %v", libraries, err)
	}
	for _, args := range [][]string{{"--version"}, {"version"}} {
		stdout, _, _ := harness.Run(t, harness.Command{Path: program, Args: args})
		if !regexp.MustCompile(`^limeload-l4 1\.0\.0 go1\.\S+$`).MatchString(stdout) {
			t.Errorf("%v: %q", args, stdout)
		}
	}
	tool(t, program, "check", "--config", filepath.Join(folder, "lb.toml"))
	for _, file := range []string{
		"README.md", "LICENSE", "CHANGELOG.md", "limeload-l4.service", "docs/install.md", "examples/reference.toml",
		"completions/limeload-l4.bash", "man/limeload-l4.8.gz", "sysusers.d/limeload-l4.conf", "tmpfiles.d/limeload-l4.conf",
		"modules-load.d/limeload-l4.conf",
	} {
		if _, err := os.Stat(filepath.Join(folder, file)); err != nil {
			t.Error(err)
		}
	}
	r, err := gzip.NewReader(strings.NewReader(read(t, filepath.Join(folder, "man/limeload-l4.8.gz"))))
	check(t, err)
	page, err := io.ReadAll(r)
	check(t, err)
	if !bytes.Contains(page, []byte(day)) {
		t.Errorf("the date of the manual page is not that of the release: %.200s", page)
	}
}

// modulesOf returns what a list names: "module version" each.
func modulesOf(t *testing.T, file string) (names []string) {
	t.Helper()
	var list struct {
		BOMFormat, SpecVersion, SerialNumber string
		Metadata                             struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Type, Name, Version, PURL string }
	}
	check(t, json.Unmarshal([]byte(read(t, file)), &list))
	if list.BOMFormat != "CycloneDX" || list.SpecVersion != "1.5" ||
		!regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(list.SerialNumber) {
		t.Errorf("not a CycloneDX document: %+v", list)
	}
	if list.Metadata.Component.Name != "limeload-l4" || list.Metadata.Component.Version != oldVersion {
		t.Errorf("it describes %+v", list.Metadata.Component)
	}
	for _, c := range list.Components {
		names = append(names, c.Name+" "+c.Version)
	}
	slices.Sort(names)
	return names
}

// TestModules compares the SBOM with what `go version -m` prints of the released binary.
func TestModules(t *testing.T) {
	t.Parallel()
	text := tool(t, "go", "version", "-m", filepath.Join(unpacked(t), "limeload-l4"))
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)`).FindAllStringSubmatch(text, -1) {
		want = append(want, m[1]+" "+m[2])
	}
	if len(want) < 20 {
		t.Fatalf("go version -m names %d modules:\n%s", len(want), text)
	}
	want = append(want, "std "+regexp.MustCompile(`: go(\S+)`).FindStringSubmatch(text)[1])
	slices.Sort(want)
	if got := modulesOf(t, first(t, "limeload-l4_1.0.0_linux_amd64.cdx.json")); !slices.Equal(got, want) {
		t.Errorf("the list has %q, want %q", got, want)
	}
}

// TestLintian has Debian's own checks read the package: no error and no warning is left, other than those that the
// package overrides with a reason.
func TestLintian(t *testing.T) {
	t.Parallel()
	complaints := func(args ...string) string {
		cmd := exec.Command(harness.Tool(t, "lintian"), append(args, "--fail-on", "error,warning", first(t, oldDeb))...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		text, err := cmd.CombinedOutput()
		if err == nil {
			return ""
		}
		return fmt.Sprintf("%s%v", text, err)
	}
	if !strings.Contains(complaints("--no-override"), "statically-linked-binary") {
		t.Fatal("lintian finds nothing where an override hides something")
	}
	if text := complaints(); text != "" {
		t.Errorf("lintian:\n%s", text)
	}
}
