package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

const (
	packagingDir = "../cmd/limeload-l4/packaging"
	unitName     = "limeload-l4.service"
)

// packaged returns the text of a file in the folder packaging.
func packaged(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(packagingDir, name))
	check(t, err)
	return string(text)
}

// packagedFiles returns the paths of the files for systemd in the folder packaging, relative to it.
func packagedFiles(t *testing.T) []string {
	t.Helper()
	files := []string{unitName}
	for _, folder := range []string{"sysusers.d", "tmpfiles.d", "examples"} {
		entries, err := os.ReadDir(filepath.Join(packagingDir, folder))
		check(t, err)
		for _, e := range entries {
			files = append(files, folder+"/"+e.Name())
		}
	}
	return files
}

// settings returns the values of a unit's settings, in order, by name.
func settings(unit string) map[string][]string {
	found := map[string][]string{}
	for line := range strings.Lines(unit) {
		name, value, is := strings.Cut(strings.TrimSpace(line), "=")
		if is && !strings.HasPrefix(name, "#") {
			found[name] = append(found[name], value)
		}
	}
	return found
}

// setting returns the value of a setting that the unit must have exactly once.
func setting(t *testing.T, unit, name string) string {
	t.Helper()
	values := settings(unit)[name]
	if len(values) != 1 {
		t.Fatalf("%s= stands in the unit %d times, expected once", name, len(values))
	}
	return values[0]
}

// A unitFolder is a folder of units as systemd reads one.
type unitFolder string

// install writes a file into the folder, with the binary under test where the unit names the installed one.
func (f unitFolder) install(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(string(f), name)
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	text = strings.ReplaceAll(text, "/usr/bin/limeload-l4", harness.Binary(t, true))
	check(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// analyze runs systemd-analyze, which needs no running systemd for this.
func analyze(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	stdout, stderr, code := harness.Run(t, harness.Command{
		Path: harness.Tool(t, "systemd-analyze"), Args: args, Env: []string{"SYSTEMD_LOG_LEVEL=warning", "LC_ALL=C"},
	})
	return stdout + stderr, code
}

// complaints returns systemd's complaints about a unit; "" for a good one.
func complaints(t *testing.T, unit string) string {
	t.Helper()
	output, code := analyze(t, "verify", "--man=no", unit)
	if output == "" && code != 0 {
		output = fmt.Sprintf("exit code %d", code)
	}
	return output
}

// dropIns returns the example drop-ins of the service.
func dropIns(t *testing.T) []string {
	t.Helper()
	files := slices.DeleteFunc(packagedFiles(t), func(name string) bool {
		return !strings.HasPrefix(name, "examples/") || filepath.Ext(name) != ".conf"
	})
	if len(files) == 0 {
		t.Fatal("there are no example drop-ins")
	}
	return files
}

// TestSystemdUnits checks every unit and drop-in with systemd.
func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	bad := unitFolder(t.TempDir())
	for name, line := range map[string]string{"unknown.service": "[Service]\nProtectSytem=strict\n",
		"value.service": "[Service]\nWatchdogSec=often\n"} {
		if complaints(t, bad.install(t, name, packaged(t, unitName)+line)) == "" {
			t.Fatalf("systemd accepts the bad sample %s", name)
		}
	}

	units := unitFolder(t.TempDir())
	unit := units.install(t, unitName, packaged(t, unitName))
	if output := complaints(t, unit); output != "" {
		t.Errorf("%s: %s", unitName, output)
	}
	for _, name := range packagedFiles(t) {
		if filepath.Ext(name) != ".socket" {
			continue
		}
		if output := complaints(t, units.install(t, filepath.Base(name), packaged(t, name))); output != "" {
			t.Errorf("%s: %s", name, output)
		}
	}
	for _, name := range dropIns(t) {
		units.install(t, unitName+".d/"+filepath.Base(name), packaged(t, name))
	}
	if output := complaints(t, unit); output != "" {
		t.Errorf("with all example drop-ins: %s", output)
	}
	units.install(t, unitName+".d/zz-bad.conf", "[Service]\nAmbientCapabilites=CAP_NET_RAW\n")
	if complaints(t, unit) == "" {
		t.Error("systemd does not read the drop-ins: they were not checked")
	}
}

// maxExposure is the highest exposure of the unit that `systemd-analyze security` may report, from 0 to 10, times ten
// as for the option --threshold.
const maxExposure = 17

// TestSystemdHardening holds that the service is confined.
func TestSystemdHardening(t *testing.T) {
	t.Parallel()
	exposed := func(t *testing.T, files map[string]string) bool {
		t.Helper()
		units := unitFolder(t.TempDir())
		for name, text := range files {
			units.install(t, name, text)
		}
		output, code := analyze(t, "security", "--offline=true", "--no-pager",
			fmt.Sprintf("--threshold=%d", maxExposure), filepath.Join(string(units), unitName))
		if !strings.Contains(output, "Overall exposure level") {
			t.Fatalf("systemd-analyze security: %s", output)
		}
		return code != 0
	}
	service := packaged(t, unitName)
	lax := strings.ReplaceAll(service, "SystemCallFilter=", "#")
	if !exposed(t, map[string]string{unitName: lax}) {
		t.Fatalf("a service that may call the kernel as it likes passes with %.1f", maxExposure/10.0)
	}
	if exposed(t, map[string]string{unitName: service}) {
		t.Errorf("`systemd-analyze security --offline=true` says more than %.1f of the unit", maxExposure/10.0)
	}
	if exposed(t, map[string]string{unitName: service, unitName + ".d/icmp.conf": packaged(t, "examples/icmp.conf")}) {
		t.Errorf("`systemd-analyze security --offline=true` says more than %.1f of the unit with raw sockets",
			maxExposure/10.0)
	}

	for name, expected := range map[string]string{
		"AmbientCapabilities":   "CAP_NET_BIND_SERVICE",
		"CapabilityBoundingSet": "CAP_NET_BIND_SERVICE",
		"User":                  "limeload",
		"NoNewPrivileges":       "yes",
	} {
		if value := setting(t, service, name); value != expected {
			t.Errorf("%s=%s, expected %s", name, value, expected)
		}
	}
	// the first hides /proc/sys/net/core/somaxconn from Go, the second makes the capability useless
	for _, name := range []string{"ProcSubset", "PrivateUsers", "PrivateNetwork", "IPAddressDeny"} {
		if values := settings(service)[name]; len(values) > 0 {
			t.Errorf("%s=%s breaks a balancer", name, values[0])
		}
	}
}

// TestSystemdTimes holds that the unit's times fit the daemon's.
func TestSystemdTimes(t *testing.T) {
	t.Parallel()
	example := harness.MustRun(t, harness.Command{Path: harness.Binary(t, false), Args: []string{"example", "all"}})
	drain := regexp.MustCompile(`(?m)^drain_timeout\s*=\s*"(\d+)s"`).FindStringSubmatch(example)
	stop := regexp.MustCompile(`^(\d+)s$`).FindStringSubmatch(setting(t, packaged(t, unitName), "TimeoutStopSec"))
	if drain == nil || stop == nil {
		t.Fatal("no drain_timeout in the example, or no TimeoutStopSec in the unit, in seconds")
	}
	longest, err := strconv.Atoi(drain[1])
	check(t, err)
	allowed, err := strconv.Atoi(stop[1])
	check(t, err)
	if allowed < longest+10 {
		t.Errorf("TimeoutStopSec=%ds leaves too little time for a drain_timeout of %d s", allowed, longest)
	}
}

// TestSystemdUsersAndFolders applies sysusers.d and tmpfiles.d with systemd, as a package's scripts would.
func TestSystemdUsersAndFolders(t *testing.T) {
	t.Parallel()
	const users, folders = "sysusers.d/limeload-l4.conf", "tmpfiles.d/limeload-l4.conf"
	root := t.TempDir()
	sysusers := func(text string) (string, int) {
		file := filepath.Join(t.TempDir(), "users.conf")
		check(t, os.WriteFile(file, []byte(text), 0o600))
		stdout, stderr, code := harness.Run(t, harness.Command{
			Path: harness.Tool(t, "systemd-sysusers"), Args: []string{"--dry-run", "--root=" + root, file},
			Env: []string{"LC_ALL=C"},
		})
		return stdout + stderr, code
	}
	if output, code := sysusers("q limeload - -\n"); code == 0 {
		t.Fatalf("systemd-sysusers accepts the bad sample: %s", output)
	}
	if output, code := sysusers(packaged(t, users)); code != 0 ||
		!strings.Contains(output, "Creating user 'limeload'") {
		t.Errorf("%s: exit code %d, %s", users, code, output)
	}

	check(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	check(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nlimeload:x:990:\n"), 0o600))
	tmpfiles := func(text string) (string, int) {
		file := filepath.Join(t.TempDir(), "folders.conf")
		check(t, os.WriteFile(file, []byte(text), 0o600))
		stdout, stderr, code := harness.Run(t, harness.Command{ // --clean reads all and touches nothing that has no age
			Path: harness.Tool(t, "systemd-tmpfiles"), Args: []string{"--clean", "--root=" + root, file},
			Env: []string{"LC_ALL=C"},
		})
		return stdout + stderr, code
	}
	for _, bad := range []string{"d /etc/limeload 0750 root limelaod -\n", "d etc/limeload 0750 root root -\n",
		"d /etc/limeload rwx root root -\n"} {
		if output, code := tmpfiles(bad); code == 0 && output == "" {
			t.Fatalf("systemd-tmpfiles accepts the bad sample %q", bad)
		}
	}
	if output, code := tmpfiles(packaged(t, folders)); code != 0 || output != "" {
		t.Errorf("%s: exit code %d, %s", folders, code, output)
	}
}
