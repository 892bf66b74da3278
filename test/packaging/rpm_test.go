package packaging

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// rpm runs rpm of this machine on the root, and returns its output. The packages that it depends on are Debian's here,
// which rpm does not know.
func (r root) rpm(t *testing.T, args ...string) string {
	t.Helper()
	return tool(t, "rpm", append([]string{"--root", r.path, "--dbpath", "/var/lib/rpm"}, args...)...)
}

// TestRPMContents looks into the package.
func TestRPMContents(t *testing.T) {
	t.Parallel()
	file := first(t, oldRPM)
	if got, want := tool(t, "rpm", "-qp", "--qf", "%{name} %{version} %{release} %{arch} %{license}\n", file),
		"limeload-l4 1.0.0 1 x86_64 Apache-2.0"; got != want {
		t.Errorf("the package is %q, want %q", got, want)
	}
	if newer := tool(t, "rpm", "-qp", "--qf", "%{version}", second(t, newRPM)); newer != "1.1.0~rc.1" {
		t.Errorf("the version before a release is %s", newer)
	}
	list := tool(t, "rpm", "-qlvp", file)
	for _, want := range []string{
		`(?m)^drwxr-x--- .* root +limeload .* /etc/limeload$`, `(?m)^-rw-r----- .* root +limeload .* /etc/limeload/lb.toml$`,
		`(?m)^-rwxr-xr-x .* root +root .* /usr/bin/limeload-l4$`,
		`(?m)^-rw-r--r-- .* root +root .* /usr/lib/systemd/system/limeload-l4.service$`,
		`(?m)^-rw-r--r-- .* /usr/share/zsh/site-functions/_limeload-l4$`, `(?m)/usr/share/licenses/limeload-l4/LICENSE$`,
	} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("the package has no %s:\n%s", want, list)
		}
	}
	if config := tool(t, "rpm", "-qcp", file); config != "/etc/limeload/lb.toml" {
		t.Errorf("the configuration files are %q", config)
	}
	if text := tool(t, "rpm", "-Kv", "--nosignature", file); strings.Contains(text, "BAD") {
		t.Errorf("the package is damaged: %s", text)
	}
}

// TestRPM installs, upgrades and removes the package with rpm in a Debian root, whose shell runs the scripts.
func TestRPM(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	r.withSystemd(t)
	check(t, os.Mkdir(r.in("var/lib/rpm"), 0o755))
	fresh := r.files(t)
	r.rpm(t, "--install", "--nodeps", first(t, oldRPM))
	if calls := r.calls(t); !slices.Equal(calls, []string{"preset"}) {
		t.Errorf("the installation did %q to the service, want preset", calls)
	}
	if text := r.rpm(t, "--verify", "--nodeps", "limeload-l4"); text != "" {
		t.Errorf("rpm --verify: %s", text)
	}
	if got := r.owner(t, "/etc/limeload/lb.toml"); got != "root:limeload 0640" {
		t.Errorf("the configuration is %s", got)
	}
	r.run(t, "limeload-l4", "check")

	own := "# my own\n" + read(t, r.in("etc/limeload/lb.toml"))
	check(t, os.WriteFile(r.in("etc/limeload/lb.toml"), []byte(own), 0o640))
	r.rpm(t, "--upgrade", "--nodeps", second(t, newRPM))
	if calls := r.calls(t); len(calls) > 0 {
		t.Errorf("the upgrade did %q to a service that does not run", calls)
	}
	if read(t, r.in("etc/limeload/lb.toml")) != own {
		t.Error("the upgrade replaced the operator's configuration")
	}
	if text := r.run(t, "limeload-l4", "--version"); !strings.HasPrefix(text, "limeload-l4 "+newVersion+" ") {
		t.Errorf("the version is %s", text)
	}
	r.rpm(t, "--erase", "--nodeps", "limeload-l4")
	if calls := r.calls(t); !slices.Equal(calls, []string{"disable"}) {
		t.Errorf("the removal did %q to the service, want disable --now", calls)
	}
	var left []string
	for _, path := range slices.Sorted(maps.Keys(r.leftovers(t, fresh))) {
		info, err := os.Lstat(r.in(path))
		check(t, err)
		if !info.IsDir() || !strings.HasPrefix(path, "/usr/") { // folders there belong to packages of rpm's systems
			left = append(left, path)
		}
	}
	if want := []string{"/etc/limeload", "/etc/limeload/lb.toml.rpmsave"}; !slices.Equal(left, want) {
		t.Errorf("the removal leaves %q, want %q", left, want)
	}
}

// TestRPMScripts has the shell read each script, and proves that it finds mistakes.
func TestRPMScripts(t *testing.T) {
	t.Parallel()
	mistakes := func(script string) string {
		_, stderr, _ := harness.Run(t, harness.Command{Path: "/bin/sh", Args: []string{"-n", script}})
		return stderr
	}
	bad := filepath.Join(t.TempDir(), "bad")
	check(t, os.WriteFile(bad, []byte("if true; then\n"), 0o600))
	if mistakes(bad) == "" {
		t.Fatal("the shell accepts the bad sample")
	}
	scripts, err := filepath.Glob(repository + "/cmd/limeload-l4/packaging/rpm/*")
	check(t, err)
	if len(scripts) != 4 {
		t.Errorf("%d scripts", len(scripts))
	}
	for _, script := range scripts {
		if text := mistakes(script); text != "" {
			t.Errorf("%s: %s", script, text)
		}
	}
}
