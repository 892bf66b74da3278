package conf

import (
	"bytes"
	"reflect"
	"strings"
)

// validateDiscovery reports mistakes in d beyond those of single values. Missing keys and keys of the wrong type are
// reported already.
func validateDiscovery(r *report, path string, d *Discovery) {
	if d == nil {
		return
	}
	asksDNS := d.Type == "dns" || d.Type == "srv"
	if (asksDNS || d.Name != "") && !validHost(d.Name) {
		r.add(join(path, "name"), Error{Found: quote(d.Name), Message: "this is not a host name",
			Allowed: `needs one such as "redis.internal" or "_redis._tcp.internal"`})
	}
	if d.Type == "file" && d.File == "" {
		r.add(join(path, "file"), Error{Found: quote(d.File), Allowed: "needs the path of a list of backends"})
	}
	if d.Resolver != "" {
		validAddress(r, join(path, "resolver"), d.Resolver, forResolver)
	}
	if d.Type == "patroni" {
		validatePatroni(r, path, d)
	}
	if d.Type == "sentinel" {
		validateSentinel(r, path, d)
	}
	if d.Type == "etcd" {
		validateEtcd(r, path, d)
	}
}

// backendFile is the content of a discovery file.
type backendFile struct {
	Backends []Backend `toml:"backends" required:"a list of backends, such as [{ address = \"10.0.0.11:6379\" }], or [] for none" zero:""`
}

// ParseBackends reads the backends that a discovery file holds, in its order: a TOML or JSON document with the one key
// "backends", a list of the same tables as in a pool, or in JSON that list alone. It touches nothing else. Its errors
// are Errors; they call data by the name file, and their paths begin with "backends" in each form.
//
// A file named *.json is JSON, and so is a text that begins with "{", or with "[" before "{" or "]", as TOML never
// does. Everything else is TOML.
//
// Each address must be literal, so that each backend's Addr is filled. An empty list is allowed and empties the pool. A
// missing list is a mistake, so that a truncated file does not empty the pool. Only a file that is truncated between
// two [[backends]] tables goes unnoticed.
func ParseBackends(file string, data []byte) ([]Backend, error) {
	if e := checkText(data); e != nil {
		e.File = file
		return nil, Errors{e}
	}
	read := readTOML
	r := newReport(whole(file), map[string]int{"": 1})
	if isJSON(file, data) {
		read = r.readJSON
	}
	found, root, e := read(data)
	if e != nil {
		e.File = file
		return nil, Errors{e}
	}
	var list backendFile
	r.table(reflect.ValueOf(&list).Elem(), found, root, "")
	validateBackends(r, "backends", list.Backends, forDiscovered)
	if err := r.err(); err != nil {
		return nil, err
	}
	return list.Backends, nil
}

// isJSON reports whether data is JSON, as ParseBackends defines it.
func isJSON(file string, data []byte) bool {
	const blank = " \t\r\n"
	text := bytes.TrimLeft(bytes.TrimPrefix(data, []byte(byteOrderMark)), blank)
	if list, ok := bytes.CutPrefix(text, []byte("[")); ok {
		text = bytes.TrimLeft(list, blank)
		if bytes.HasPrefix(text, []byte("]")) {
			return true
		}
	}
	return strings.HasSuffix(file, ".json") || bytes.HasPrefix(text, []byte("{"))
}
