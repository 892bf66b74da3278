package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

const packaging = "cmd/limeload-l4/packaging"

// A built is a folder with the program for one architecture and the files that are made from it and from the sources.
type built struct {
	arch   string
	folder string
}

// program returns the path of the binary.
func (b built) program() string { return filepath.Join(b.folder, "limeload-l4") }

// buildFor builds the program for arch, and the files that go with it.
func (r *release) buildFor(arch string) (built, error) {
	b := built{arch: arch, folder: filepath.Join(r.build, "linux-"+arch)}
	if err := os.RemoveAll(filepath.Join(b.folder, "examples")); err != nil { // of an earlier version
		return b, err
	}
	if err := os.MkdirAll(filepath.Join(b.folder, "examples"), 0o755); err != nil {
		return b, err
	}
	if err := r.compile(arch, b.program()); err != nil {
		return b, err
	}
	own := b.program()
	if arch != runtime.GOARCH { // this machine cannot run the program: one that it can run writes the same pages
		own = filepath.Join(r.build, "limeload-l4-pages")
		if err := r.compile(runtime.GOARCH, own); err != nil {
			return b, err
		}
	}
	for section, page := range map[string]string{"8": "limeload-l4.8", "5": "lb.toml.5"} {
		cmd := exec.Command(own, "man", section)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.date.Unix(), 10))
		text, err := cmd.Output()
		if err != nil {
			return b, fmt.Errorf("limeload-l4 man %s: %w", section, err)
		}
		if err := writeGzip(filepath.Join(b.folder, page+".gz"), text); err != nil {
			return b, err
		}
	}
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return b, err
	}
	if err := writeGzip(filepath.Join(b.folder, "changelog.gz"), changes); err != nil {
		return b, err
	}
	if err := writeGzip(filepath.Join(b.folder, "changelog.Debian.gz"), r.debianChangelog()); err != nil {
		return b, err
	}
	return b, copyExamples(filepath.Join(b.folder, "examples"))
}

// compile builds a static program that names its version and nothing of the machine that built it.
func (r *release) compile(arch, path string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X main.stamped="+r.version, "-o", path, "./cmd/limeload-l4")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %s: %w\n%s", arch, err, output)
	}
	return nil
}

// debianChangelog returns the changelog that Debian wants of the package itself.
func (r *release) debianChangelog() []byte {
	version := debianVersion(r.version)
	return fmt.Appendf(nil, "limeload-l4 (%s) unstable; urgency=medium\n\n"+
		"  * Version %s.\n"+
		"  * The changes are in changelog.gz.\n\n"+
		" -- limeload-l4 maintainers <limeload-l4@users.noreply.github.com>  %s\n",
		version, r.version, r.date.Format(time.RFC1123Z))
}

// debianVersion returns a version as dpkg has it: a pre-release comes before its release.
func debianVersion(version string) string {
	v := []byte(version)
	if i := bytes.IndexByte(v, '-'); i >= 0 {
		v[i] = '~'
	}
	return string(v) + "-1"
}

// copyExamples copies the examples into folder: all configurations, and what systemd, Prometheus and Grafana may use.
func copyExamples(folder string) error {
	for _, pattern := range []string{"examples/*", "configurations/*", "prometheus/limeload.rules.yml", "grafana/*"} {
		files, err := filepath.Glob(filepath.Join(packaging, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := copyFile(file, filepath.Join(folder, filepath.Base(file))); err != nil {
				return err
			}
		}
	}
	return copyFile("conf/reference.toml", filepath.Join(folder, "reference.toml"))
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// writeGzip writes a compressed file without a name and a time in it, so that the same text gives the same bytes.
func writeGzip(path string, text []byte) error {
	compressed := new(bytes.Buffer)
	w, err := gzip.NewWriterLevel(compressed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, compressed.Bytes(), 0o644)
}
