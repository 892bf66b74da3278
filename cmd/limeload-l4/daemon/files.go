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
	maxSecretBytes = 4 << 10 // of one token or password
	maxPEMBytes    = 4 << 20 // of certificates: the authorities of a whole system are 0.3 MB
)

// errNotRead is the error of a file that files may not read.
var errNotRead = errors.New("not read")

// files reads what one configuration names. It is for one goroutine.
type files struct {
	config string          // the configuration's own file: relative paths count from its folder
	only   map[string]bool // paths that may be read; nil is all

	seen   map[string]content // what was read, by the key that names it
	unread []string           // keys and paths of what may not be read
}

// A content says which contents a file had, without keeping a secret longer than it takes to use it.
type content struct {
	path string
	sum  [sha256.Size]byte
}

// newFiles is for the configuration that was read from a file.
func newFiles(config string) *files {
	return &files{config: config, seen: make(map[string]content)}
}

// read reads the file that the key at that path names.
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
	f.seen[key] = content{path, sha256.Sum256(data)}
	return data, nil
}

// wrong says of a file that was read what is wrong with it.
func (f *files) wrong(name string, err error) error {
	return &fs.PathError{Op: "read", Path: conf.FilePath(f.config, name), Err: err}
}

// firstLine reads the one line of a file that holds a secret.
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

// changed lists the keys of which next has read other contents than f at the same path, below a key and without it.
func (f *files) changed(next *files, below string) []string {
	var keys []string
	for key, now := range next.seen {
		before, known := f.seen[key]
		if rest, ok := strings.CutPrefix(key, below+"."); ok && known && before.path == now.path && before.sum != now.sum {
			keys = append(keys, rest)
		}
	}
	slices.Sort(keys)
	return keys
}

// paths is where the files are that were read.
func (f *files) paths() map[string]bool {
	all := make(map[string]bool, len(f.seen))
	for _, c := range f.seen {
		all[c.path] = true
	}
	return all
}
