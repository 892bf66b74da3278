package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBoot runs a program in a machine: its arguments, its folder and variables, its output and its exit code.
func TestBoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "testdata", "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"testdata/below/data": "the data",
		"program": "#!/bin/sh\npwd; cat testdata/below/data; echo; echo \"$LIMELOAD_VM_TEST\"; printf '<%s>' \"$@\"; echo\n" +
			"openssl version; lsmod | grep -q '^tls ' && echo kernel TLS; ip address show lo | grep -o 127.0.0.1/8\nexit 3\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kernel, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("LIMELOAD_VM_TEST", "it's $HOME")
	odd := []string{"", "a b", "it's", `"$HOME"`, "*"}
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{
		"-kernel", filepath.Join(kernel, "build", "kernel"), "-pack", "openssl", "./program",
	}, odd...), &out, &errs)
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 8 || !strings.HasPrefix(lines[4], "OpenSSL ") {
		t.Fatalf("code %d, output\n%s%s", code, out.String(), errs.String())
	}
	lines[4] = ""
	want := []string{dir, "the data", "it's $HOME", "<" + strings.Join(odd, "><") + ">", "", "kernel TLS", "127.0.0.1/8", ""}
	if code != 3 || !slices.Equal(lines, want) {
		t.Errorf("code %d, output\n%q, want\n%q\n%s", code, lines, want, errs.String())
	}
}

// TestStopped stops a machine, and says so.
func TestStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"/bin/sh"}, &out, &errs); code != 2 ||
		!strings.Contains(errs.String(), "the machine was stopped") {
		t.Errorf("code %d, said %q", code, errs.String())
	}
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "no program"},
		{[]string{"-nonsense", "/bin/sh"}, "-nonsense"},
		{[]string{"-kernel", "/nowhere", "/bin/sh"}, "0 kernels in /nowhere/boot, want one: remove the folder, and let `make tools`"},
		{[]string{"-pack", "no-such-program", "/bin/sh"}, "no-such-program: exec:"},
		{[]string{"/no/such/program"}, "/no/such/program: stat"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), tt.args, &out, &errs); code != 2 || !strings.Contains(errs.String(), tt.want) {
			t.Errorf("%q: code %d, said %q, want %q", tt.args, code, errs.String(), tt.want)
		}
	}
}

// TestArchive has busybox list and unpack an archive.
func TestArchive(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("12345"), 0o755); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	a := newArchive(&b)
	for _, err := range []error{
		a.text("/a/b/text", "text\n", 0o600), a.text("/a/b/text", "another", 0o600), a.file("/a/copy", source),
		a.link("/a/link", "b/text"), a.folder("/a/b"), a.close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	unpack := exec.Command("busybox", "cpio", "-idv")
	unpack.Stdin = &b
	out, err := unpack.CombinedOutput()
	if listed := strings.Join(strings.Fields(string(out)), " "); err != nil ||
		!strings.HasPrefix(listed, "a a/b a/b/text a/copy a/link ") {
		t.Fatalf("listed %q, %v", listed, err)
	}
	for path, want := range map[string]string{"a/b/text": "text\n", "a/link": "text\n", "a/copy": "12345"} {
		if got, err := os.ReadFile(path); string(got) != want || err != nil {
			t.Errorf("%s has %q, %v", path, got, err)
		}
	}
	if info, err := os.Stat("a/copy"); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}
