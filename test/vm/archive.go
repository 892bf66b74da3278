package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Kinds of files in a mode, as in inode(7).
const (
	modeFolder = 0o040000
	modeFile   = 0o100000
	modeLink   = 0o120000
)

// An archive writes a cpio archive in the format "newc", which the kernel unpacks into its first file system
// (Documentation/driver-api/early-userspace/buffer-format.rst). Files are added by the paths that they will have there;
// the folders above them are added by themselves, and what is there already is left as it is.
//
// Its zero value is of no use, see newArchive. It is not safe for concurrent use.
type archive struct {
	w     io.Writer
	done  map[string]bool // the paths that are in it
	inode int
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, done: map[string]bool{"/": true, "": true}}
}

// has reports whether there is a file with this path.
func (a *archive) has(path string) bool { return a.done[path] }

// folder adds a folder.
func (a *archive) folder(path string) error { return a.entry(path, modeFolder|0o755, 0, nil) }

// link adds a symbolic link.
func (a *archive) link(path, target string) error {
	return a.entry(path, modeLink|0o777, int64(len(target)), func(w io.Writer) error {
		_, err := io.WriteString(w, target)
		return err
	})
}

// text adds a file with this content.
func (a *archive) text(path, content string, permissions os.FileMode) error {
	return a.entry(path, modeFile|int(permissions.Perm()), int64(len(content)), func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	})
}

// file adds the content and permissions of a file of this machine; a link's are those of its target.
func (a *archive) file(path, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.entry(path, modeFile|int(info.Mode().Perm()), info.Size(), func(w io.Writer) error {
		_, err := io.CopyN(w, f, info.Size())
		return err
	})
}

// entry adds one entry, after the folders above it.
func (a *archive) entry(path string, mode int, size int64, content func(io.Writer) error) error {
	if a.done[path] {
		return nil
	}
	if err := a.folder(filepath.Dir(path)); err != nil {
		return err
	}
	a.done[path] = true
	if err := a.header(path[1:], mode, size); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	if err := content(a.w); err != nil {
		return fmt.Errorf("write %s into the archive: %w", path, err)
	}
	return a.pad(size)
}

// header writes what comes before the content: numbers in hexadecimal, and the name.
func (a *archive) header(name string, mode int, size int64) error {
	a.inode++
	const noTime, noDevice, noChecksum, oneLink, rootUser = 0, 0, 0, 1, 0
	n, err := fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", a.inode, mode,
		rootUser, rootUser, oneLink, noTime, size, noDevice, noDevice, noDevice, noDevice, len(name)+1, noChecksum, name)
	if err != nil {
		return err
	}
	return a.pad(int64(n))
}

// pad fills up to a multiple of four bytes.
func (a *archive) pad(size int64) error {
	_, err := a.w.Write(make([]byte, -size&3))
	return err
}

// close writes the archive's end.
func (a *archive) close() error { return a.header("TRAILER!!!", 0, 0) }
