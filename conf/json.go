package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// byteOrderMark may begin a file in UTF-8 and is ignored.
const byteOrderMark = "\ufeff"

// A jsonReader turns a JSON text into the trees that the TOML library and the scanner make of a TOML file, so that one
// binder serves both. Like the scanner, it stops silently at invalid syntax: readJSON gets the error from the library.
type jsonReader struct {
	report *report // for duplicate keys and numbers that are too large
	data   []byte
	dec    *json.Decoder
	pos    int // the lines up to here are counted in line
	line   int // of the last token; no token spans lines
	order  int
	deep   int // the line where maxDepth was exceeded, 0 if none
}

// readJSON is readTOML for JSON. A text that is a list means a table with that list as backends. Mistakes that leave
// the rest readable go to r.
func (r *report) readJSON(data []byte) (map[string]any, *place, *Error) {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	j := &jsonReader{report: r, data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	j.dec.UseNumber()
	path := ""
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("[")) {
		path = "backends"
	}
	root := &place{line: 1}
	found, _ := j.value(root, path, 0)
	if j.deep > 0 {
		return nil, nil, tooDeep(j.deep)
	}
	// This reads to the end, including anything after the value.
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return nil, nil, jsonSyntaxError(data, err)
	}
	switch v := found.(type) {
	case map[string]any:
		return v, root, nil
	case []any:
		return map[string]any{path: v}, &place{line: 1, table: map[string]*place{path: root}}, nil
	}
	return nil, nil, &Error{Line: j.line, Found: describe(found),
		Allowed: `needs a list of backends, or a table with the key "backends"`}
}

// jsonSyntaxError returns the library's error in our form.
func jsonSyntaxError(data []byte, err error) *Error {
	e := &Error{Line: 1, Message: "not valid JSON: " + printable(err.Error()), err: err}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		// The offset is after the wrong character, which may be the end of a line.
		e.Line += bytes.Count(data[:max(syntax.Offset-1, 0)], []byte("\n"))
	}
	return e
}

// value reads any value and fills its place; its depth is that of the table or list around it.
func (j *jsonReader) value(at *place, path string, depth int) (v any, ok bool) {
	token, ok := j.token()
	if !ok {
		return nil, false
	}
	at.line, at.order = j.line, j.order
	switch token := token.(type) {
	case json.Delim:
		switch {
		case depth == maxDepth:
			j.deep = j.line
			return nil, false
		case token == '{':
			return j.table(at, path, depth+1)
		}
		return j.list(at, path, depth+1)
	case json.Number:
		return j.number(token, path), true
	}
	return token, true
}

// table reads the keys and values of an object, which stand depth deep, and its closing brace.
func (j *jsonReader) table(at *place, path string, depth int) (any, bool) {
	found := map[string]any{}
	at.table = map[string]*place{}
	for j.dec.More() {
		token, _ := j.token()
		key, ok := token.(string)
		if !ok {
			return nil, false
		}
		line, order := j.line, j.order
		sub := join(path, key)
		first, twice := at.table[key]
		if twice {
			j.add(sub, Error{Message: fmt.Sprintf("line %d has this key already", first.line)})
		}
		c := &place{}
		v, ok := j.value(c, sub, depth)
		if !ok {
			return nil, false
		}
		c.line, c.order = line, order // the key's, not those of its value
		if !twice {
			found[key], at.table[key] = v, c
		}
	}
	_, ok := j.token()
	return found, ok
}

// list reads the elements of a list, which stand depth deep, and its closing bracket.
func (j *jsonReader) list(at *place, path string, depth int) (any, bool) {
	found := []any{}
	for j.dec.More() {
		c := &place{}
		v, ok := j.value(c, element(path, len(found)), depth)
		if !ok {
			return nil, false
		}
		found, at.items = append(found, v), append(at.items, c)
	}
	_, ok := j.token()
	return found, ok
}

// number returns an integer if the number is written as one and fits, as in TOML.
func (j *jsonReader) number(n json.Number, path string) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, err := n.Float64()
	if err != nil { // the decoder has checked its syntax, so it is too large
		j.add(path, Error{Found: "the number " + prefix(n.String(), maxQuoted), Message: "too large to be read"})
	}
	return f
}

// token reads the next token and brings line up to it.
func (j *jsonReader) token() (json.Token, bool) {
	token, err := j.dec.Token()
	if err != nil {
		return nil, false
	}
	end := int(j.dec.InputOffset())
	j.line += bytes.Count(j.data[j.pos:end], []byte("\n"))
	j.pos = end
	j.order++
	return token, true
}

// add reports a mistake on the line of the token read last.
func (j *jsonReader) add(path string, e Error) {
	j.report.lines[path] = j.line
	j.report.add(path, e)
}
