package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// TestConvertChecks converts the configurations of package convert: each result is one that check accepts, and the exit
// code says whether something was left out.
func TestConvertChecks(t *testing.T) {
	t.Setenv("WEB3_HOST", "w3.example.com")
	n := 0
	for _, file := range slices.Concat(glob(t, "convert/testdata/*.cfg"), glob(t, "convert/testdata/*.conf")) {
		n++
		code, text, notes := command(t, "convert", file)
		c, err := conf.Parse(file, []byte(text))
		if err != nil || len(c.Listeners) == 0 {
			t.Errorf("%v\n%s", err, text)
		}
		if want := strings.Contains(notes, "left out:"); want != (code == exitFailed) || code > exitFailed {
			t.Errorf("%s: exit code %d\n%s", file, code, notes)
		}
	}
	if n != 10 {
		t.Errorf("%d configurations", n)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestConvertCommand(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good.cfg", "listen a\n mode tcp\n bind :1\n server s 10.0.0.1:2\n")
	left := write("left.cfg", "listen a\n mode tcp\n bind :1\n server s 10.0.0.1:2\n what now\n")
	none := write("none.cfg", "backend a\n mode tcp\n server s 10.0.0.1:2\n")
	write("part.conf", "server { listen 2; proxy_pass 10.0.0.1:3; }")
	write("wrong.conf", "server { listen 3; proxy_pass 10.0.0.1:4; mystery 1; }")
	nginx := write("nginx.conf", "stream { include *.conf; }")
	taken := write("taken.toml", "")
	for _, test := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{good}, exitDone, "[listener.a]", ""},
		{[]string{good, "--from", "haproxy"}, exitDone, "[listener.a]", ""},
		{[]string{left}, exitFailed, "[listener.a]", "left.cfg:5: what now: limeload-l4 does not know this word"},
		{[]string{none}, exitFailed, "", "nothing is left that clients could connect to"},
		{[]string{good, "--from", "nginx"}, exitFailed, "", "nothing is left"},
		{[]string{good, "--from", "caddy"}, exitUsage, "", `--from "caddy": needs haproxy or nginx`},
		{[]string{filepath.Join(folder, "gone")}, exitUsage, "", "there is no such file"},
		{[]string{folder}, exitUsage, "", "is a directory"},
		{[]string{taken}, exitUsage, "", "no words of HAProxy or nginx"},
		{[]string{good, "--to", taken}, exitFailed, "", "is there already"},
		{[]string{}, exitUsage, "", "FILE is missing"},
	} {
		code, stdout, stderr := command(t, append([]string{"convert"}, test.args...)...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) ||
			test.stdout == "" && stdout != "" || test.stderr == "" && stderr != "" {
			t.Errorf("%q: exit code %d\n%s\n%s", test.args, code, stdout, stderr)
		}
	}
	// *.conf has nginx.conf itself, too
	code, stdout, stderr := command(t, "convert", nginx)
	if code != exitFailed || !strings.Contains(stderr, "it includes itself") || !strings.Contains(stdout, "0.0.0.0:2") ||
		!strings.Contains(stderr, "wrong.conf:1: mystery 1") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	to := filepath.Join(folder, "new.toml")
	if code, stdout, stderr := command(t, "convert", "--to", to, good); code != exitDone || stdout != "" || stderr != "" {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if text, err := os.ReadFile(to); err != nil || !strings.Contains(string(text), "[pool.a]") {
		t.Error(err, string(text))
	}
}
