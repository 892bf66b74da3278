package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/limeload/limeload-l4/conf/file"
)

// MaxFileBytes bounds a configuration. Ten thousand backends with all their keys take 0.7 MB and 0.1 s; a file larger
// than 4 MiB is not a configuration.
const MaxFileBytes = 4 << 20

// maxTables bounds the listeners, and the pools, of a configuration. Each takes a tenth of a millisecond even without
// keys, so a file of empty tables took 15 s.
const maxTables = 10_000

// maxMistakes bounds the reported mistakes of one file: 4 MiB of mistakes made 30 MB of text.
const maxMistakes = 1000

// Load reads the file at path and parses it. Its errors are Errors, also for a file that
// cannot be read, in which case errors.Is finds the cause.
//
// It is for paths on a command line: it also reads pipes, and waits for them.
func Load(path string) (*Config, error) {
	return parseRead(path, ReadFile)
}

// LoadRegular is Load for a process that must not block or read a device: it reads regular files only.
func LoadRegular(path string) (*Config, error) {
	return parseRead(path, func(path string) ([]byte, error) { return file.Read(path, MaxFileBytes) })
}

func parseRead(path string, read func(path string) ([]byte, error)) (*Config, error) {
	d, err := readDocument(path, read)
	if err != nil {
		return nil, err
	}
	return d.parse(nil)
}

// ReadFile reads the text of a configuration for Parse, as Load does. If the file is too large it returns one byte more
// than allowed, so that Parse reports it.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
}

// LoadData is Load for a text that is at hand, which errors call by the name file. Files that it includes are read, and
// relative paths count from the folder of file, or from the working folder if file is in none.
func LoadData(file string, data []byte) (*Config, error) {
	d, err := compose(file, data, ReadFile)
	if err != nil {
		return nil, err
	}
	return d.parse(nil)
}

// Parse returns the Config in data. It reads nothing else but the environment of the process, for the strings that name
// a variable: the key include is not followed, see LoadText, and host names stay unresolved, see Config.Resolve. Its
// errors are Errors, which call data by the name file.
func Parse(file string, data []byte) (*Config, error) {
	return (&composed{data: data, parts: whole(file)}).parse(nil)
}

// ParseForeign is Parse for data whose author may see what comes of it, and must not see all of the environment: it has
// only the variables that the file of known names.
func ParseForeign(file string, data []byte, known *Config) (*Config, error) {
	return (&composed{data: data, parts: whole(file)}).parse(known)
}

// parse returns the Config in the document; known is that of ParseForeign, or nil.
func (d *composed) parse(known *Config) (*Config, error) {
	found, root, e := map[string]any(nil), (*place)(nil), checkText(d.data)
	if e == nil {
		found, root, e = readTOML(d.data)
	}
	if e != nil {
		return nil, Errors{d.located(e)}
	}
	c := &Config{File: d.parts[0].file, parts: d.parts, lines: map[string]int{"": 1}}
	r := newReport(c.parts, c.lines)
	r.expandAll(found, c.environment(known), root, "")
	r.table(reflect.ValueOf(c).Elem(), found, root, "")
	validate(r, c)
	c.patterns, c.Include = c.Include, nil
	c.given, c.origin = r.given, r.origin
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// readTOML returns the tree of values in data and the tree of their places. The error has no file.
func readTOML(data []byte) (map[string]any, *place, *Error) {
	root, deep := scan(data)
	if deep > 0 {
		return nil, nil, tooDeep(deep)
	}
	found := map[string]any{}
	if _, err := toml.Decode(string(data), &found); err != nil {
		return nil, nil, syntaxError(data, err)
	}
	return found, root, nil
}

func tooDeep(line int) *Error {
	return &Error{Line: line, Message: fmt.Sprintf("tables and lists are nested more than %d deep", maxDepth)}
}

// checkText reports characters that no TOML or JSON file may contain, with better messages than the libraries'.
func checkText(data []byte) *Error {
	if len(data) > MaxFileBytes {
		return &Error{Found: fmt.Sprintf("more than %v", Size(MaxFileBytes)),
			Allowed: "needs a file of at most that size"}
	}
	line := 1
	for rest := data; len(rest) > 0; {
		c, size := utf8.DecodeRune(rest)
		switch {
		case c == 0:
			return &Error{Line: line, Found: "a NUL byte", Allowed: "needs a text file in UTF-8"}
		case c == utf8.RuneError && size == 1:
			return &Error{Line: line, Found: fmt.Sprintf("the byte 0x%02x", rest[0]),
				Allowed: "needs a text file in UTF-8"}
		case c == '\n':
			line++
		}
		rest = rest[size:]
	}
	return nil
}

// syntaxError returns the library's error in our form, with a remedy if one is known.
func syntaxError(data []byte, err error) *Error {
	e := &Error{Line: 1, Message: err.Error(), err: err}
	if syntax, ok := errors.AsType[toml.ParseError](err); ok {
		// At an unexpected end the library's line may be one off at either end of the file.
		e.Line = min(max(syntax.Position.Line, 1), bytes.Count(data, []byte("\n"))+1)
		e.Message = syntax.Message
	}
	if again, is := secondTimeOn(data, e.Line); is {
		e.Message = fmt.Sprintf("not valid TOML: line %d has %s already", again.first, printable(again.name))
		return e
	}
	e.Message = "not valid TOML: " + printable(strings.TrimSuffix(e.Message, "."))
	e.Allowed = syntaxRemedy(lineOf(data, e.Line))
	return e
}
