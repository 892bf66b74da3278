package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// readJSON decodes the body of a request, one JSON object, into the struct that into points at. An object is required unless
// optional. It is stricter than encoding/json, which takes names in any case, a name twice, null for everything and text
// that is no UTF-8: whoever sends one of these does not get what they mean.
func (s *Server) readJSON(a *asked, into any, optional bool) error {
	if optional && a.ContentLength == 0 {
		return nil
	}
	if err := wantType(a.Request, mediaJSON); err != nil {
		return err
	}
	body, err := readAll(a, s.limits.jsonBytes)
	if err != nil {
		return err
	}
	if err := decodeObject(body, into); err != nil {
		return err
	}
	a.body = into
	return nil
}

// noBody refuses a body where none is taken: who sends one expects it to be heeded.
func noBody(a *asked) error {
	if a.ContentLength == 0 {
		return nil
	}
	n, err := readSome(a)
	if err != nil {
		return err
	}
	if n > 0 {
		return newProblem(problemBadRequest, a.Method+" "+clip(a.URL.EscapedPath())+" takes no body")
	}
	return nil
}

// readSome reads until there is a byte of the body or its end.
func readSome(a *asked) (int, error) {
	n, err := io.ReadFull(a.Body, make([]byte, 1))
	if err != nil && !errors.Is(err, io.EOF) {
		return n, bodyError(err, 0)
	}
	return n, nil
}

// wantType refuses a body of another type than media, and one that is compressed.
func wantType(r *http.Request, media string) error {
	given := r.Header.Get("Content-Type")
	parsed, parameters, err := mime.ParseMediaType(given)
	charset, hasCharset := parameters["charset"]
	switch {
	case err != nil || parsed != media:
		return newProblem(problemMediaType, "Content-Type: found "+strconv.Quote(clip(given))+"; needs "+media)
	case hasCharset && !strings.EqualFold(charset, "utf-8"):
		return newProblem(problemMediaType, "Content-Type: found the charset "+strconv.Quote(clip(charset))+"; needs utf-8")
	case r.Header.Get("Content-Encoding") != "":
		return newProblem(problemMediaType, "Content-Encoding: found "+strconv.Quote(clip(r.Header.Get("Content-Encoding")))+"; needs none")
	}
	return nil
}

// readAll reads a body of at most so many bytes.
func readAll(a *asked, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(a.w, a.Body, most))
	if err != nil {
		return nil, bodyError(err, most)
	}
	return body, nil
}

// bodyError says why a body could not be read.
func bodyError(err error, most int64) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return newProblem(problemBodyTooLarge, "the body has more than "+strconv.FormatInt(most, 10)+" bytes")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return newProblem(problemSlowBody, "the body did not come in time")
	}
	return newProblem(problemBadRequest, "read the body: "+err.Error())
}

// decodeObject decodes a JSON object into the struct that into points at. The fields of the struct are texts, numbers and
// booleans, and pointers to these.
func decodeObject(body []byte, into any) error {
	if !utf8.Valid(body) {
		return newProblem(problemBadRequest, "the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return newProblem(problemBadRequest, "the body needs to be a JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		name, isText := t.(string)
		if err != nil || !isText {
			return malformed(err)
		}
		field, known := fieldNamed(reflect.ValueOf(into).Elem(), name)
		switch {
		case !known:
			return newProblem(problemBadRequest, clip(name)+": there is no such field").of(clip(name))
		case seen[name]:
			return newProblem(problemBadRequest, name+": it is there twice").of(name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return malformedAt(name, err)
		}
		if err := decodeValue(value, field, name); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return malformed(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return newProblem(problemBadRequest, "the body needs to be one JSON object, and there is something after it")
	}
	return nil
}

// decodeValue decodes one value of an object.
func decodeValue(value json.RawMessage, field reflect.Value, name string) error {
	if string(value) == "null" {
		return newProblem(problemBadRequest, name+": found null; needs a value, or to be left out").of(name)
	}
	err := json.Unmarshal(value, field.Addr().Interface())
	var mistyped *json.UnmarshalTypeError
	if errors.As(err, &mistyped) {
		return newProblem(problemBadRequest, name+": found "+clip(mistyped.Value)+"; needs "+wanted(field.Type())).of(name)
	}
	if err != nil {
		return malformedAt(name, err)
	}
	return nil
}

// malformed is a body that is no JSON.
func malformed(err error) *Problem {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return newProblem(problemBadRequest, "the body is no JSON: "+err.Error())
}

// malformedAt is a body that is no JSON from the value of a field on.
func malformedAt(name string, err error) *Problem {
	p := malformed(err).of(name)
	p.Detail = name + ": " + p.Detail
	return p
}

// fieldNamed returns the field of a struct that has a name in JSON.
func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); tag == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// wanted says what JSON a field takes.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "a text"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	panic("admin: no body has a field of type " + t.String())
}
