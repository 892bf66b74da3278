package conf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An Error is one mistake in a configuration: where it is, what was found there and what is allowed. Its text is one
// line of printable characters: text from the file is quoted and cut. It is read-only, so any goroutine may use it.
type Error struct {
	File    string // as it was given to Load, Parse or ParseBackends; "" for the value of a key
	Line    int    // from 1; 0 if the mistake concerns the whole file
	Path    string // such as pool.redis.backends[1].weight; "" if no key is at fault
	Found   string // in words or quoted: `the integer 15`, `300`, `"udp"`
	Message string // what is wrong, if Found and Allowed are not enough
	Allowed string // with its verb: `allowed is 0 to 256`, `needs a table`
	Nearest string // the known key or value that was probably meant

	err   error // the cause, if there is one; Message says it in words
	order int   // its line in the document, which may have several files
}

// Error says `FILE:LINE: PATH: found FOUND; MESSAGE; ALLOWED, did you mean "NEAREST"?`
// without the parts that are empty. In a text that is no file, it begins with `line LINE` or the path.
func (e *Error) Error() string {
	var where []string
	switch {
	case e.File != "" && e.Line > 0:
		where = append(where, printable(e.File)+":"+strconv.Itoa(e.Line))
	case e.File != "":
		where = append(where, printable(e.File))
	case e.Line > 0:
		where = append(where, "line "+strconv.Itoa(e.Line))
	}
	if e.Path != "" {
		where = append(where, e.Path)
	}
	var parts []string
	if e.Found != "" {
		parts = append(parts, "found "+e.Found)
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	if e.Allowed != "" {
		parts = append(parts, e.Allowed)
	}
	text := strings.Join(append(where, strings.Join(parts, "; ")), ": ")
	if e.Nearest != "" {
		text += ", did you mean " + quote(e.Nearest) + "?"
	}
	return text
}

// Unwrap returns the cause, such as fs.ErrNotExist for a file that is not there.
func (e *Error) Unwrap() error { return e.err }

// Errors has every mistake found, sorted by line. A function never returns it empty.
type Errors []*Error

// Error returns the mistakes, one per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As see each mistake.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// report collects the mistakes of one file. Each key has at most one, the first, which is the most basic: later checks
// of a value that could not be read would only add noise.
type report struct {
	parts []part
	lines map[string]int // by path; for omitted known keys, the line of their table
	errs  Errors
	seen  map[string]bool

	absent map[string]bool   // paths of omitted keys whose default depends on other keys
	given  map[string]bool   // paths of keys that the file has
	origin map[string]string // see Config.origin

	fields  map[reflect.Type][]field // of the tables bound so far: reading the tags took most of the time
	foreign map[string]foreignKey    // nil before the first unknown key
}

func newReport(parts []part, lines map[string]int) *report {
	return &report{parts: parts, lines: lines, seen: map[string]bool{}, absent: map[string]bool{},
		given: map[string]bool{}, origin: map[string]string{},
		fields: map[reflect.Type][]field{}}
}

// add records e with path and the path's line, unless path has a mistake already.
func (r *report) add(path string, e Error) {
	if r.seen[path] {
		return
	}
	r.seen[path] = true
	e.Path, e.order = path, r.lines[path]
	e.File, e.Line = locate(r.parts, e.order)
	r.errs = append(r.errs, &e)
}

// where says where a key is, "on line 7".
func (r *report) where(path string) string { return whereIn(r.parts, r.lines[path]) }

// err returns the mistakes as an error, nil if there are none.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return r.sorted()
}

// sorted returns the mistakes in the order of the file; those beyond maxMistakes are replaced by their number.
func (r *report) sorted() Errors {
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.order, b.order), strings.Compare(a.Path, b.Path))
	})
	if n := len(r.errs) - maxMistakes; n > 0 {
		last := r.errs[maxMistakes-1]
		r.errs = append(r.errs[:maxMistakes:maxMistakes],
			&Error{File: last.File, Line: last.Line, Message: fmt.Sprintf("and %d more mistakes", n)})
	}
	return r.errs
}

// Path joins keys as errors write them: with dots, and with quotes where TOML needs them, so that Path("pool",
// "eu.redis", "retries") is `pool."eu.redis".retries`.
func Path(keys ...string) string {
	path := ""
	for _, k := range keys {
		path = join(path, k)
	}
	return path
}

func join(path, key string) string {
	if key == "" || len(key) > maxQuoted || !bare(key) {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// element returns the path of the i-th element of the list at path, counted from 0.
func element(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// Quoted text is cut, so that a line stays readable. maxQuoted is longer than DNS names in practice; messages of the
// TOML library contain quotes of their own.
const (
	maxQuoted  = 64  // bytes
	maxMessage = 256 // bytes
)

// quote quotes text of the file for a message: printable, on one line and short.
func quote(s string) string {
	if cut := prefix(s, maxQuoted); cut != s {
		return strconv.Quote(cut) + "..."
	}
	return strconv.Quote(s)
}

// printable makes a text safe for a message that may contain parts of the file and has its own quotes.
func printable(s string) string {
	var b strings.Builder
	for _, c := range prefix(s, maxMessage) {
		if strconv.IsPrint(c) {
			b.WriteRune(c)
			continue
		}
		escaped := strconv.QuoteRune(c)
		b.WriteString(escaped[1 : len(escaped)-1])
	}
	if len(s) > maxMessage {
		b.WriteString("...")
	}
	return b.String()
}

// prefix returns at most n bytes of s and never splits a character.
func prefix(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// cause returns the text of an operating system's error without the path, which our errors contain already.
func cause(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return printable(err.Error())
}

// causeBeside returns cause, preceded by the path if it is not that of the configuration. The path is not cut, since
// people copy it.
func causeBeside(config string, err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && pathErr.Path != config {
		return strconv.Quote(pathErr.Path) + ": " + cause(err)
	}
	return cause(err)
}
