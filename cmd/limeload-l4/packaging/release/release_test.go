package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMistakesOfTheCommandLine(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1764460800")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"all"}, "make VERSION=1.2.3"},
		{[]string{"-version", "1.2", "all"}, `version "1.2": needs three numbers`},
		{[]string{"-version", "1.2.3-rc-1", "all"}, `version "1.2.3-rc-1"`},
		{[]string{"-version", "1.2.3; rm", "all"}, `version "1.2.3; rm"`},
		{[]string{"-version", "1.2.3"}, "nothing to make: name tar, deb, rpm, sbom, image or all"},
		{[]string{"-version", "1.2.3", "apk"}, `product "apk": needs tar, deb, rpm, sbom, image or all`},
		{[]string{"-version", "1.2.3", "-arch", "riscv64", "deb"}, `architecture "riscv64": needs amd64 or arm64`},
		{[]string{"-version", "1.2.3", "-arch", " ", "deb"}, "no architecture"},
		{[]string{"-what"}, "-what"},
	} {
		var stderr strings.Builder
		if code := run(test.args, io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: exit code %d, %q, want %q", test.args, code, stderr.String(), test.want)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	var stderr strings.Builder
	code := run([]string{"-version", "1.2.3", "deb"}, io.Discard, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "SOURCE_DATE_EPOCH") {
		t.Errorf("a bad date: exit code %d, %q", code, stderr.String())
	}
}

func TestArguments(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1764460800")
	r, products, err := parse([]string{"-version", "v1.2.3-rc.1+5.gc0ffee", "-arch", "arm64 amd64", "all"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if r.version != "1.2.3-rc.1+5.gc0ffee" || !slices.Equal(r.arches, []string{"arm64", "amd64"}) ||
		r.date.Unix() != 1764460800 || !slices.Equal(products, []string{"tar", "deb", "rpm", "sbom"}) {
		t.Errorf("release %+v, products %v", r, products)
	}
	if got := debianVersion(r.version); got != "1.2.3~rc.1+5.gc0ffee-1" {
		t.Errorf("Debian's version is %s", got)
	}
}

// TestModules compares the list of a binary's modules with what Go wrote into it.
func TestModules(t *testing.T) {
	r := &release{version: "1.2.3+5.gc0ffee", date: time.Unix(1764460800, 0).UTC()}
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Main: debug.Module{Path: "example.org/program"},
		Deps: []*debug.Module{
			{Path: "example.org/z", Version: "v2.0.0+incompatible"},
			{Path: "example.org/a", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/fork", Version: "v1.0.1"}},
		},
	}
	got := r.bomOf(built{arch: "amd64"}, info)
	var names []string
	for _, c := range got.Components {
		names = append(names, c.Name+" "+c.Version+" "+c.PURL)
	}
	want := []string{
		"std 1.26.8 pkg:golang/std@1.26.8",
		"example.org/fork v1.0.1 pkg:golang/example.org/fork@v1.0.1",
		"example.org/z v2.0.0+incompatible pkg:golang/example.org/z@v2.0.0%2Bincompatible",
	}
	if !slices.Equal(names, want) {
		t.Errorf("components %q, want %q", names, want)
	}
	if got.Metadata.Timestamp != "2025-11-30T00:00:00Z" || got.Metadata.Component.Version != r.version {
		t.Errorf("metadata %+v", got.Metadata)
	}
	if other := r.bomOf(built{arch: "arm64"}, info); other.Serial == got.Serial {
		t.Error("two documents have one serial number")
	}
	if again := r.bomOf(built{arch: "amd64"}, info); again.Serial != got.Serial {
		t.Error("the same document has another serial number")
	}
}

// TestArchive holds that an archive depends on nothing but the files' contents.
func TestArchive(t *testing.T) {
	folder := t.TempDir()
	files := map[string]string{"r/program": filepath.Join(folder, "a"), "r/docs/b.md": filepath.Join(folder, "b")}
	for _, file := range files {
		if err := os.WriteFile(file, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &release{date: time.Unix(1764460800, 0).UTC()}
	var archives [2]bytes.Buffer
	for i := range archives {
		if err := r.writeTar(&archives[i], files, files["r/program"]); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Chtimes(file, time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("two archives of the same files differ")
	}
	var names []string
	for tr := tar.NewReader(&archives[0]); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		executable := h.Mode == 0o755
		if executable != (h.Name == "r/program") || h.Uid != 0 || h.ModTime.Unix() != r.date.Unix() {
			t.Errorf("header %+v", h)
		}
	}
	if want := []string{"r/docs/b.md", "r/program"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

func TestGzip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.gz")
	if err := writeGzip(file, []byte("text")); err != nil {
		t.Fatal(err)
	}
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "text" || r.Name != "" || !r.ModTime.IsZero() {
		t.Errorf("%q, name %q, time %v, error %v", text, r.Name, r.ModTime, err)
	}
}

// TestVersion runs version.sh in checkouts with and without tags, and in none.
func TestVersion(t *testing.T) {
	script, err := filepath.Abs("../version.sh")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	in := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(folder), "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_AUTHOR_DATE=2026-11-30T01:28:44+01:00", "GIT_COMMITTER_DATE=2026-11-30T01:28:44+01:00")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func() string {
		in("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--allow-empty", "-m", "x")
		return "g" + in("git", "rev-parse", "--short=12", "HEAD")
	}
	want := func(version string) {
		t.Helper()
		if got := in(script); got != version {
			t.Errorf("version %q, want %q", got, version)
		}
		if version != "" && !versions.MatchString(version) {
			t.Errorf("a release cannot have the version %s", version)
		}
	}
	want("")
	in("git", "init", "--quiet")
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in("git", "add", "file")
	id := commit()
	want("0.0.0+20261130002844." + id)
	in("git", "tag", "unrelated")
	in("git", "tag", "v1.3.0-rc.1")
	want("1.3.0-rc.1")
	id = commit()
	want("1.3.0-rc.1+1." + id)
	in("git", "tag", "v1.3.0")
	want("1.3.0")
	if err := os.WriteFile(file, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("1.3.0+dirty")
}
