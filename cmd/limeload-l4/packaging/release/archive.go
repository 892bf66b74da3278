package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// name returns the name of a file of the release, without its extension.
func (r *release) name(b built) string { return "limeload-l4_" + r.version + "_linux_" + b.arch }

// archived returns which files a tar.gz has: patterns of paths, by the folder that they get in it.
func archived(b built) map[string][]string {
	return map[string][]string{
		"": {
			b.program(), "README.md", "CHANGELOG.md", "LICENSE", packaging + "/lb.toml", packaging + "/limeload-l4.service",
		},
		"docs":           {"docs/*.md"},
		"examples":       {b.folder + "/examples/*"},
		"man":            {b.folder + "/*.[58].gz"},
		"completions":    {packaging + "/completions/*"},
		"sysusers.d":     {packaging + "/sysusers.d/*"},
		"tmpfiles.d":     {packaging + "/tmpfiles.d/*"},
		"modules-load.d": {packaging + "/modules-load.d/*"},
	}
}

// archive writes the tar.gz. Its files belong to root, have the date of the release, and are in the order of their
// names.
func (r *release) archive(b built) error {
	files := make(map[string]string) // paths here, by their names in the archive
	for folder, patterns := range archived(b) {
		for _, pattern := range patterns {
			found, err := filepath.Glob(pattern)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return fmt.Errorf("no file %s", pattern)
			}
			for _, file := range found {
				files[path.Join(r.name(b), folder, filepath.Base(file))] = file
			}
		}
	}
	out := filepath.Join(r.out, r.name(b)+".tar.gz")
	written := new(bytes.Buffer)
	zip, err := gzip.NewWriterLevel(written, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := r.writeTar(zip, files, b.program()); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	r.files = append(r.files, out)
	return os.WriteFile(out, written.Bytes(), 0o644)
}

func (r *release) writeTar(w io.Writer, files map[string]string, program string) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	t := tar.NewWriter(w)
	for _, name := range names {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if files[name] == program {
			mode = 0o755
		}
		header := &tar.Header{
			Name: name, Mode: mode, Size: int64(len(text)), ModTime: r.date, Uname: "root", Gname: "root",
			Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		if _, err := t.Write(text); err != nil {
			return err
		}
	}
	return t.Close()
}

// checksums writes SHA256SUMS of the release's files, as `sha256sum --check` reads it.
func (r *release) checksums() error {
	slices.Sort(r.files)
	var sums strings.Builder
	for _, file := range r.files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(text), filepath.Base(file))
	}
	file := filepath.Join(r.out, "SHA256SUMS")
	r.files = append(r.files, file)
	return os.WriteFile(file, []byte(sums.String()), 0o644)
}
