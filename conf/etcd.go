package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
)

// validateEtcd reports mistakes in discovery of type etcd, at path.
func validateEtcd(r *report, path string, d *Discovery) {
	secure := validateEndpoints(r, join(path, "endpoints"), d.Endpoints)
	at := join(path, "prefix")
	needs := `needs the beginning of the backends' keys, with a slash at its end, such as "/services/redis/"`
	switch {
	case r.seen[at]:
	case d.Prefix != "" && !strings.HasSuffix(d.Prefix, "/"):
		r.add(at, Error{Found: quote(d.Prefix), Message: "the slash at the end is missing", Allowed: needs})
	case !validKeyPath(d.Prefix, true):
		r.add(at, Error{Found: quote(d.Prefix), Allowed: needs})
	}
	validateClusterLogin(r, path, d)
	// Endpoints with a mistake do not decide.
	if !r.seen[join(path, "endpoints")] && len(d.Endpoints) > 0 {
		validateClusterTLS(r, path, d, secure, `needs endpoints that begin with "https://"`)
	}
}

// ParseBackend reads the backend that the value of one key in etcd describes: a JSON object with the keys of a backend
// in a pool, or only its address as a JSON string. The backend has the given name unless the value has another one. It
// touches nothing else. The error is of one line.
//
// As in a discovery file, the address must be literal, so that the backend's Addr or Path is filled.
func ParseBackend(name string, value []byte) (Backend, error) {
	found, err := parseOne(name, value)
	if err == nil {
		return found, nil
	}
	mistakes, is := errors.AsType[Errors](err)
	if !is {
		return Backend{}, err
	}
	texts := make([]string, len(mistakes))
	for i, e := range mistakes {
		e.Path = strings.TrimPrefix(strings.TrimPrefix(e.Path, "backends[0]"), ".")
		if e.Path == "backends" {
			e.Path = ""
		}
		if !bytes.ContainsRune(value, '\n') {
			e.Line = 0
		}
		texts[i] = e.Error()
	}
	return Backend{}, errors.New(strings.Join(texts, ", "))
}

// parseOne is ParseBackend with Errors whose paths begin with backends[0].
func parseOne(name string, value []byte) (Backend, error) {
	const needs = `needs the JSON of one backend, such as {"address": "10.0.0.11:6379"}`
	if e := checkText(value); e != nil {
		return Backend{}, Errors{e}
	}
	text := bytes.TrimSpace(value)
	if len(text) == 0 || !bytes.ContainsAny(text[:1], `{"`) {
		return Backend{}, Errors{{Found: quote(string(text)), Allowed: needs}}
	}
	if err := json.Unmarshal(value, new(json.RawMessage)); err != nil {
		return Backend{}, Errors{jsonSyntaxError(value, err)}
	}
	r := newReport(whole(""), map[string]int{"": 1})
	found, root, e := r.readJSON(slices.Concat([]byte("["), value, []byte("]"))) // a list of one, as in a file
	if e != nil {
		return Backend{}, Errors{e}
	}
	var list backendFile
	r.table(reflect.ValueOf(&list).Elem(), found, root, "")
	for i := range list.Backends {
		if list.Backends[i].Name == "" {
			list.Backends[i].Name = name
		}
	}
	validateBackends(r, "backends", list.Backends, forDiscovered)
	if err := r.err(); err != nil {
		return Backend{}, err
	}
	return list.Backends[0], nil
}
