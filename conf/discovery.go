package conf

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
)

// validateDiscovery reports what is wrong with d beyond single values, and fills ResolverAddr.
// What a key of the wrong type or a missing one says is a mistake already.
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
	if d.Resolver == "" {
		return
	}
	if end, ok := validAddress(r, join(path, "resolver"), d.Resolver, forResolver); ok {
		d.ResolverAddr = netip.AddrPortFrom(end.ip, end.port)
	}
}

// backendFile is what a discovery file holds.
type backendFile struct {
	Backends []Backend `toml:"backends" required:"a list of backends, such as [{ address = \"10.0.0.11:6379\" }], or [] for none" zero:""`
}

// ParseBackends reads the backends that a discovery file holds, in its order: a TOML or JSON
// document with the one key "backends", a list of the same tables as in a pool, or in JSON that
// list alone. It touches nothing else. In errors data is called file; they are Errors, and their
// paths begin with "backends" in each form.
//
// A file named *.json is JSON, and so is a text that begins as TOML never does, with "{" or
// with "[" before "{" or "]". All else is TOML.
//
// Each address must be literal, and so each backend's Addr is filled. An empty list is allowed,
// and empties the pool; none at all is a mistake, or a file cut short would empty it too. Only
// [[backends]] tables cut off between two cannot be told from the whole.
func ParseBackends(file string, data []byte) ([]Backend, error) {
	if e := checkText(data); e != nil {
		e.File = file
		return nil, Errors{e}
	}
	read := readTOML
	r := newReport(file, map[string]int{"": 1})
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

// isJSON decides as ParseBackends says.
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
