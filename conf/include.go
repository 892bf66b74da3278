package conf

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// A configuration may include other files, each of which begins with a table. They are put behind its own text, in the
// order of their names, and all of it is read as one document. So a table in two files is the same mistake as one that
// a file has twice. parts tells which line is whose.

// maxIncluded bounds the files that a configuration includes.
const maxIncluded = 1000

// A part is one file of a configuration.
type part struct {
	file  string
	first int // its first line in the document, from 1
}

// A composed configuration is the text of a configuration with all files that it includes.
type composed struct {
	data  []byte
	parts []part // never empty
}

// whole is the parts of a document that is one file.
func whole(file string) []part { return []part{{file: file, first: 1}} }

// locate returns the file and the line there of a line of the document; 0 stays 0.
func locate(parts []part, line int) (file string, at int) {
	of := parts[0]
	for _, p := range parts {
		if p.first <= line {
			of = p
		}
	}
	return of.file, max(line-of.first+1, 0)
}

// whereIn says where a line of the document is, "on line 7" or "on line 7 of conf.d/b.toml".
func whereIn(parts []part, line int) string {
	file, at := locate(parts, line)
	if file == parts[0].file {
		return fmt.Sprintf("on line %d", at)
	}
	return fmt.Sprintf("on line %d of %s", at, printable(file))
}

// located gives a mistake in the syntax of the document its file, and its line there.
func (d *composed) located(e *Error) *Error {
	if again, is := secondTimeOn(d.data, e.Line); is && len(d.parts) > 1 {
		e.Message = fmt.Sprintf("not valid TOML: %s is there already, %s", printable(again.name),
			whereIn(d.parts, again.first))
	}
	e.File, e.Line = locate(d.parts, e.Line)
	return e
}

// Files returns the files of the configuration: that of File, and those that it includes.
func (c *Config) Files() []string {
	files := make([]string, len(c.parts))
	for i, p := range c.parts {
		files[i] = p.file
	}
	return files
}

// IncludeFolders returns the folders in which the patterns of the key include find files, as far as they exist.
func (c *Config) IncludeFolders() []string {
	var folders []string
	for _, pattern := range c.patterns {
		if found, err := filepath.Glob(filepath.Dir(FilePath(c.File, pattern))); err == nil {
			folders = append(folders, found...)
		}
	}
	return folders
}

// LoadText is Load, and returns besides the text of the file and of all files that it includes, one behind the other,
// for Parse in another process. It reads each file once. The text is there in spite of mistakes in it.
func LoadText(path string) (*Config, []byte, error) {
	d, err := readDocument(path, ReadFile)
	if err != nil {
		return nil, nil, err
	}
	c, err := d.parse(nil)
	return c, d.data, err
}

// readDocument reads the file at path, and those that it includes.
func readDocument(path string, read func(path string) ([]byte, error)) (*composed, error) {
	data, err := read(path)
	if err != nil {
		return nil, Errors{{File: path, Message: cause(err), err: err}}
	}
	return compose(path, data, read)
}

// compose reads the files that the configuration in data includes, and returns all of them as one document. Mistakes in
// the key include itself are left to the binder.
func compose(file string, data []byte, read func(path string) ([]byte, error)) (*composed, error) {
	d := &composed{data: data, parts: whole(file)}
	patterns := includes(data)
	if len(patterns) == 0 {
		return d, nil
	}
	names, err := included(file, patterns)
	if err != nil {
		return nil, err
	}
	d.data = slices.Clone(data)
	for _, name := range names {
		text, err := read(name)
		if err != nil {
			return nil, Errors{{File: name, Message: cause(err), err: err}}
		}
		if err := checkPart(name, text); err != nil {
			return nil, Errors{err}
		}
		if d.data = append(d.data, '\n'); len(d.data)+len(text) > MaxFileBytes {
			return nil, Errors{{File: name, Found: fmt.Sprintf("more than %v", Size(MaxFileBytes)),
				Allowed: "needs files of at most that size, all together"}}
		}
		d.parts = append(d.parts, part{file: name, first: bytes.Count(d.data, []byte("\n")) + 1})
		d.data = append(d.data, bytes.TrimPrefix(text, []byte(byteOrderMark))...)
	}
	return d, nil
}

// includes returns the patterns of the key include; nil if there are none, or the file has mistakes.
func includes(data []byte) []string {
	if !bytes.Contains(data, []byte("include")) || len(data) > MaxFileBytes {
		return nil
	}
	if _, deep := scan(data); deep > 0 {
		return nil
	}
	var said struct {
		Include []string `toml:"include"`
	}
	if _, err := toml.Decode(string(data), &said); err != nil {
		return nil
	}
	for i, pattern := range said.Include {
		said.Include[i] = Expand(pattern)
	}
	return said.Include
}

// included returns the files that the patterns of a configuration name, in the order of the patterns and then of their
// names; each once.
func included(config string, patterns []string) ([]string, error) {
	var names []string
	for _, pattern := range patterns {
		path := FilePath(config, pattern)
		found, err := filepath.Glob(path)
		switch {
		case err != nil:
			return nil, Errors{{File: config, Path: "include", Found: quote(pattern),
				Allowed: `needs the path of a file, or a pattern such as "conf.d/*.toml"`}}
		case len(found) == 0 && !strings.ContainsAny(pattern, `*?[\`):
			return nil, Errors{{File: config, Path: "include", Found: quote(pattern),
				Message: "there is no such file", err: fs.ErrNotExist}}
		}
		for _, name := range found {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		if len(names) > maxIncluded {
			return nil, Errors{{File: config, Path: "include", Found: quote(pattern),
				Message: fmt.Sprintf("these are more than %d files", maxIncluded)}}
		}
	}
	return names, nil
}

// checkPart reports why the text of a file cannot be part of a document.
func checkPart(file string, text []byte) *Error {
	e := checkText(text)
	if e == nil {
		_, _, e = readTOML(text)
	}
	if e == nil {
		e = beginsWithTable(text)
	}
	if e != nil {
		e.File = file
	}
	return e
}

// beginsWithTable reports a text whose first key is in no table: it would fall into the last table of the file before.
func beginsWithTable(text []byte) *Error {
	line := 0
	for one := range bytes.Lines(bytes.TrimPrefix(text, []byte(byteOrderMark))) {
		line++
		switch one = bytes.TrimSpace(one); {
		case len(one) == 0, one[0] == '#':
		case one[0] == '[':
			return nil
		default:
			return &Error{Line: line, Message: "this key is in no table",
				Allowed: "needs a table before all keys of an included file, such as [pool.NAME]"}
		}
	}
	return nil
}
