package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/conf/file"
)

// The bounds of the files that a configuration names.
const (
	maxSecretBytes     = 4 << 10  // for a token or password
	maxPEMBytes        = 4 << 20  // for certificates; the authorities of a whole system have 0.3 MB
	maxRevocationBytes = 64 << 20 // for revocation lists; a million certificates take about 40 MB
)

// errNotRead is the error for a file that may not be read.
var errNotRead = errors.New("not read")

// files reads the files that one configuration names. It is used by one goroutine.
type files struct {
	config string          // the file of the configuration; relative paths start at its folder
	only   map[string]bool // paths that may be read; nil for all
	// Paths of the lists that may be read, unless only is nil. Errors quote what a list has, and so a secret must not be
	// read as one.
	onlyLists map[string]bool

	seen   map[string]content // what was read, by the key that names the file
	unread []string           // keys and paths of the files that may not be read
}

// A content identifies the contents of a file, without keeping a secret in memory.
type content struct {
	path   string
	sum    [sha256.Size]byte
	isList bool // of prefixes
}

// newFiles is for a configuration that was read from the file config.
func newFiles(config string) *files {
	return &files{config: config, seen: make(map[string]content)}
}

// read reads the file name, which is the value of key.
func (f *files) read(key, name string, limit int) ([]byte, error) {
	path := conf.FilePath(f.config, name)
	if f.only != nil && !f.only[path] {
		f.unread = append(f.unread, fmt.Sprintf("%s: %q", key, path))
		return nil, errNotRead
	}
	data, err := file.Read(path, limit)
	if err != nil {
		return nil, err
	}
	f.seen[key] = content{path: path, sum: sha256.Sum256(data)}
	return data, nil
}

// wrong returns an error about the contents of a file.
func (f *files) wrong(name string, err error) error {
	return &fs.PathError{Op: "read", Path: conf.FilePath(f.config, name), Err: err}
}

// firstLine reads a file that holds a secret in its first line.
func (f *files) firstLine(key, name string) (string, error) {
	text, err := f.read(key, name, maxSecretBytes)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", f.wrong(name, errors.New("the first line is empty: needs the secret there"))
	}
	return line, nil
}

// changed returns the keys below a key, without that prefix, whose files have the same path in f and next, but other
// contents.
func (f *files) changed(next *files, below string) []string {
	var keys []string
	for key, now := range next.seen {
		before, known := f.seen[key]
		if rest, ok := strings.CutPrefix(key, below+"."); ok && known && before.path == now.path &&
			before.sum != now.sum {
			keys = append(keys, rest)
		}
	}
	slices.Sort(keys)
	return keys
}

// paths returns the paths of the files that were read, and of the lists among them.
func (f *files) paths() (all, lists map[string]bool) {
	all, lists = make(map[string]bool, len(f.seen)), make(map[string]bool)
	for _, c := range f.seen {
		all[c.path] = true
		if c.isList {
			lists[c.path] = true
		}
	}
	return all, lists
}
