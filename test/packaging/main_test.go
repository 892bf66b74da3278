// Package packaging tests what people install: the packages, the archives and the container image, as
// cmd/limeload-l4/packaging/release makes them, and the documents about them. It installs the packages into a Debian
// root of its own, and nothing on the machine.
package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// The versions that the tests make, and the date that both have.
const (
	oldVersion = "1.0.0"
	newVersion = "1.1.0-rc.1"
	epoch      = "1764460800"
	day        = "2025-11-30"
)

// repository is the folder that the program that makes releases runs in.
const repository = "../.."

// made is the folder of all that the tests make. TestMain sets and removes it.
var made string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	if made, err = os.MkdirTemp("", "limeload-packaging-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(made)
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// firstRelease makes the old version for amd64, with all that it has, and returns its folder. secondRelease makes the
// packages of the new one.
var (
	firstRelease  = sync.OnceValues(func() (string, error) { return release(oldVersion, "amd64", "all", "image") })
	secondRelease = sync.OnceValues(func() (string, error) { return release(newVersion, "amd64", "deb", "rpm") })
)

// release makes products of a version, and returns the folder that has them.
func release(version, arches string, products ...string) (string, error) {
	build, err := os.MkdirTemp(made, version+"-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(build, "release")
	args := append([]string{"run", "./cmd/limeload-l4/packaging/release", "-version", version, "-arch", arches,
		"-build", build, "-out", out}, products...)
	cmd := exec.Command("go", args...)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch)
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	return out, nil
}

// first returns the path of a file of the old version.
func first(t *testing.T, name string) string {
	t.Helper()
	folder, err := firstRelease()
	check(t, err)
	return filepath.Join(folder, name)
}

// second returns the path of a file of the new version.
func second(t *testing.T, name string) string {
	t.Helper()
	folder, err := secondRelease()
	check(t, err)
	return filepath.Join(folder, name)
}

// The names of the packages.
const (
	oldDeb = "limeload-l4_1.0.0-1_amd64.deb"
	newDeb = "limeload-l4_1.1.0~rc.1-1_amd64.deb"
	oldRPM = "limeload-l4-1.0.0-1.x86_64.rpm"
	newRPM = "limeload-l4-1.1.0~rc.1-1.x86_64.rpm"
)

// needRoot skips the test unless it runs as root: it changes the root of processes, and files of other users.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test needs root, for chroot and for files of other users: sudo go test ./test/packaging")
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	return string(text)
}
