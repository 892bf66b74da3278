package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/limeload/limeload-l4/conf"
)

// errPrinted is the error of a command that has printed what is wrong in its own form.
var errPrinted = errors.New("what is wrong has been printed")

// A finding is a mistake or a warning as `check --output json` prints it. Fields that do not apply are empty, or 0.
type finding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`     // from 1
	Column   int    `json:"column"`   // from 1, in bytes: of the key, or of the line's first character
	Key      string `json:"key"`      // such as pool.redis.backends[1].weight
	Message  string `json:"message"`  // what was found, and what is wrong with it
	Allowed  string `json:"allowed"`  // what the key allows, or what is needed
	Remedy   string `json:"remedy"`   // what was probably meant
	Severity string `json:"severity"` // "error" or "warning"
}

// printFindings prints the mistakes in err and all warnings as a list. It returns errPrinted if there are mistakes.
func (in *checked) printFindings(w io.Writer, cfg *conf.Config, warnings []string, err error) error {
	list := []finding{}
	sources := map[string][]byte{}
	if in.data != nil {
		sources[in.file] = in.data
	}
	for _, one := range flat(err) {
		list = append(list, in.finding(one, "error", sources))
	}
	if cfg != nil {
		for _, one := range cfg.WarningErrors() {
			list = append(list, in.finding(one, "warning", sources))
		}
	}
	for _, text := range warnings {
		list = append(list, finding{File: in.file, Message: text, Severity: "warning"})
	}
	text, encodeErr := cleanJSON(list, "  ")
	if encodeErr != nil {
		return encodeErr
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err != nil {
		return errPrinted
	}
	return nil
}

// flat returns the mistakes that an error consists of.
func flat(err error) (all []error) {
	if err == nil {
		return nil
	}
	var mistakes conf.Errors
	if several, is := err.(interface{ Unwrap() []error }); is {
		for _, one := range several.Unwrap() {
			all = append(all, flat(one)...)
		}
		return all
	}
	if errors.As(err, &mistakes) {
		for _, one := range mistakes {
			all = append(all, one)
		}
		return all
	}
	return []error{err}
}

// finding describes one mistake or warning.
func (in *checked) finding(err error, severity string, sources map[string][]byte) finding {
	var e *conf.Error
	if !errors.As(err, &e) {
		return finding{File: in.file, Message: err.Error(), Severity: severity}
	}
	f := finding{File: e.File, Line: e.Line, Key: e.Path, Message: e.Message, Allowed: e.Allowed, Severity: severity}
	if e.Found != "" {
		f.Message = strings.TrimSuffix("found "+e.Found+"; "+e.Message, "; ")
	}
	if e.Nearest != "" {
		f.Remedy = fmt.Sprintf("did you mean %q?", e.Nearest)
	}
	if e.Line > 0 {
		text, known := sources[e.File]
		if !known {
			text, _ = conf.ReadFile(e.File) // without it, the column is that of the line
			sources[e.File] = text
		}
		f.Column = keyColumn(text, e.Line, e.Path)
	}
	return f
}

// keyColumn returns the column of a key in a line of a text, or of the line's first character if the key is not there.
func keyColumn(text []byte, line int, path string) int {
	for range line - 1 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	text, _, _ = bytes.Cut(text, []byte("\n"))
	name := path[strings.LastIndexByte(path, '.')+1:]
	name, _, _ = strings.Cut(name, "[")
	for at := 0; name != ""; {
		i := bytes.Index(text[at:], []byte(name))
		if i < 0 {
			break
		}
		begin, end := at+i, at+i+len(name)
		if (begin == 0 || !bareKey(text[begin-1])) && (end == len(text) || !bareKey(text[end])) {
			return begin + 1
		}
		at = end
	}
	return len(text) - len(bytes.TrimLeft(text, " \t")) + 1
}

// bareKey reports whether a byte may be part of a key without quotes.
func bareKey(c byte) bool {
	return c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
