package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// docMistakes returns the paths and names in the page on systemd that differ from the files.
func docMistakes(doc string, files []string, unit string) []string {
	var mistakes []string
	const folder = "cmd/limeload-l4/packaging/"
	named := regexp.MustCompile(regexp.QuoteMeta(folder)+`[a-z0-9./-]*[a-z0-9]`).FindAllString(doc, -1)
	for _, path := range named {
		if !slices.Contains(files, strings.TrimPrefix(path, folder)) {
			mistakes = append(mistakes, path+" is not there")
		}
	}
	for _, file := range files {
		if !slices.Contains(named, folder+file) {
			mistakes = append(mistakes, file+" is not explained")
		}
	}
	for _, name := range []string{"ExecStart", "ExecReload", "TimeoutStopSec", "WatchdogSec", "OOMPolicy", "User",
		"RuntimeDirectory", "StateDirectory"} {
		for _, value := range settings(unit)[name] {
			if !strings.Contains(doc, value) {
				mistakes = append(mistakes, fmt.Sprintf("%s=%s is not explained", name, value))
			}
		}
	}
	return mistakes
}

func TestSystemdDoc(t *testing.T) {
	t.Parallel()
	bad := docMistakes("`cmd/limeload-l4/packaging/gone.service`",
		[]string{"there.service"}, "[Service]\nUser=somebody\n")
	expected := []string{"cmd/limeload-l4/packaging/gone.service is not there", "there.service is not explained",
		"User=somebody is not explained"}
	if !slices.Equal(bad, expected) {
		t.Fatalf("the guard finds %q in the bad sample, expected %q", bad, expected)
	}
	doc, err := os.ReadFile("../docs/systemd.md")
	check(t, err)
	for _, mistake := range docMistakes(string(doc), packagedFiles(t), packaged(t, unitName)) {
		t.Error(mistake)
	}
}

// TestSystemdInstallSteps runs the `install` lines of the page into an empty root, and checks that the files which the
// unit names are there.
func TestSystemdInstallSteps(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/systemd.md")
	check(t, err)
	root := t.TempDir()
	var steps int
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		for line := range strings.Lines(block[1]) {
			args, is := strings.CutPrefix(strings.TrimSpace(line), "sudo install ")
			if !is {
				continue
			}
			steps++
			args, _, _ = strings.Cut(args, "#")
			args = strings.ReplaceAll(args, " /", " "+root+"/")
			// whom only a step with sysusers makes
			args = strings.ReplaceAll(args, "-g limeload", "")
			args = strings.ReplaceAll(args, "build/limeload-l4 ", harness.Binary(t, true)+" ") // what make build makes
			// what the operator wrote
			args = strings.ReplaceAll(args, "lb.toml "+root, filepath.Join("conf", "reference.toml")+" "+root)
			harness.MustRun(t, harness.Command{Path: "/usr/bin/install", Args: strings.Fields(args), Dir: ".."})
		}
	}
	if steps == 0 {
		t.Fatal("the page installs nothing")
	}
	unit := packaged(t, unitName)
	for _, path := range []string{
		strings.Fields(setting(t, unit, "ExecStart"))[0], strings.Fields(setting(t, unit, "ExecReload"))[0],
		strings.Fields(setting(t, unit, "ExecStart"))[2],
		"/etc/systemd/system/" + unitName, "/etc/sysusers.d/limeload-l4.conf", "/etc/tmpfiles.d/limeload-l4.conf",
	} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Errorf("the steps do not install %s: %v", path, err)
		}
	}
	reference := harness.MustRun(t, harness.Command{Path: harness.Binary(t, false), Args: []string{"example", "all"}})
	if socket := "unix:/run/" + setting(t, unit, "RuntimeDirectory") + "/admin.sock"; !strings.Contains(reference,
		socket) {
		t.Errorf("the reference configuration's admin socket is not %s", socket)
	}
}
