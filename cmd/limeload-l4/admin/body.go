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

// readJSON decodes the body of a request, one JSON object, into the struct that into points at. Only if it is optional,
// it may be missing.
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

// noBody refuses a body for a route that ignores it, since the caller expects the opposite.
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

// readSome reads until there is a byte of the body, or its end.
func readSome(a *asked) (int, error) {
	n, err := io.ReadFull(a.Body, make([]byte, 1))
	if err != nil && !errors.Is(err, io.EOF) {
		return n, bodyError(err, 0)
	}
	return n, nil
}

// wantType refuses a body that has another type than media, or is compressed.
func wantType(r *http.Request, media string) error {
	given := r.Header.Get("Content-Type")
	parsed, parameters, err := mime.ParseMediaType(given)
	charset, hasCharset := parameters["charset"]
	switch {
	case err != nil || parsed != media:
		return newProblem(problemMediaType, "Content-Type: found "+strconv.Quote(clip(given))+"; needs "+media)
	case hasCharset && !strings.EqualFold(charset, "utf-8"):
		return newProblem(problemMediaType,
			"Content-Type: found the charset "+strconv.Quote(clip(charset))+"; needs utf-8")
	case r.Header.Get("Content-Encoding") != "":
		return newProblem(problemMediaType,
			"Content-Encoding: found "+strconv.Quote(clip(r.Header.Get("Content-Encoding")))+"; needs none")
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

// bodyError returns why a body could not be read.
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

// decodeObject decodes a JSON object into the struct that into points at. The fields of the struct are strings,
// numbers, booleans, or pointers to these. After an error the struct may have changed.
func decodeObject(body []byte, into any) error {
	if !utf8.Valid(body) {
		return newProblem(problemBadRequest, "the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return decodeProblem(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return newProblem(problemBadRequest, "the body needs to be one JSON object, and there is something after it")
	}
	return checkNames(body)
}

// decodeProblem returns why encoding/json refused a body.
func decodeProblem(err error) error {
	var mistyped *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	name, unknown := strings.CutPrefix(err.Error(), "json: unknown field ") // this error has no type of its own
	switch {
	case errors.As(err, &mistyped) && mistyped.Field == "":
		return newProblem(problemBadRequest, "the body needs to be a JSON object")
	case errors.As(err, &mistyped):
		detail := mistyped.Field + ": found " + clip(mistyped.Value) + "; needs " + wanted(mistyped.Type)
		return newProblem(problemBadRequest, detail).of(mistyped.Field)
	case unknown:
		if text, err := strconv.Unquote(name); err == nil {
			name = text
		}
		return noSuchField(name)
	case errors.As(err, &syntax):
		at := strconv.FormatInt(syntax.Offset, 10)
		return newProblem(problemBadRequest, "the body is no JSON: byte "+at+": "+err.Error())
	}
	return newProblem(problemBadRequest, "the body is no JSON: "+io.ErrUnexpectedEOF.Error()) // it ends too early
}

// checkNames refuses what encoding/json accepts although the caller cannot mean it: null, a repeated name, and a name
// in another case. The body has been decoded before, so it is null or an object without nested values.
func checkNames(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if begin, _ := d.Token(); begin != json.Delim('{') {
		return newProblem(problemBadRequest, "the body needs to be a JSON object")
	}
	for seen := make(map[string]bool); d.More(); {
		t, _ := d.Token()
		value, _ := d.Token()
		name, _ := t.(string)
		switch {
		case name != strings.ToLower(strings.ToUpper(name)): // all fields are in lower-case ASCII
			return noSuchField(name)
		case seen[name]:
			return newProblem(problemBadRequest, name+": it is there twice").of(name)
		case value == nil:
			return newProblem(problemBadRequest, name+": found null; needs a value, or to be left out").of(name)
		}
		seen[name] = true
	}
	return nil
}

func noSuchField(name string) error {
	return newProblem(problemBadRequest, clip(name)+": there is no such field").of(clip(name))
}

// wanted names the JSON type of a field.
func wanted(t reflect.Type) string {
	switch t.Kind() {
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
