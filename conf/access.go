package conf

import (
	"fmt"
	"net/netip"
	"slices"
)

// Access says which clients may come in. Of the prefixes that contain a client the longest decides. If there is an
// allow list, clients that no prefix contains are denied. Its zero value lets everybody in.
type Access struct {
	// addresses and prefixes
	Allow     []string `toml:"allow" default:"" min:"0" max:"1000" note:"allow_file has room for more"`
	Deny      []string `toml:"deny" default:"" min:"0" max:"1000" note:"deny_file has room for more"`
	AllowFile string   `toml:"allow_file" default:""` // a path, for ReadPrefixes; "" = none
	DenyFile  string   `toml:"deny_file" default:""`

	// Of Allow and Deny, without those that are mistakes. Parse fills them; IPv4-mapped ones are stored as IPv4.
	AllowPrefixes, DenyPrefixes []netip.Prefix
}

// On reports whether the table says anything.
func (a *Access) On() bool { return a.AllowOnly() || len(a.Deny) > 0 || a.DenyFile != "" }

// AllowOnly reports whether there is an allow list.
func (a *Access) AllowOnly() bool { return len(a.Allow) > 0 || a.AllowFile != "" }

// validateAccess checks the table at path, and fills Access.AllowPrefixes and Access.DenyPrefixes.
func validateAccess(r *report, path string, a *Access) {
	allowed := make(map[netip.Prefix]int) // which element of allow
	a.AllowPrefixes = validPrefixes(r, join(path, "allow"), a.Allow, func(i int, p netip.Prefix) { allowed[p] = i })
	a.DenyPrefixes = validPrefixes(r, join(path, "deny"), a.Deny, func(i int, p netip.Prefix) {
		if k, both := allowed[p]; both {
			allow := element(join(path, "allow"), k)
			r.add(element(join(path, "deny"), i), Error{Found: quote(a.Deny[i]),
				Message: fmt.Sprintf("%s %s allows this prefix", allow, r.where(allow)),
				Allowed: "needs to be in one of the lists alone"})
		}
	})
	if a.AllowFile != "" && a.AllowFile == a.DenyFile {
		r.add(join(path, "deny_file"), Error{Found: quote(a.DenyFile),
			Message: fmt.Sprintf("allow_file %s is the same file", r.where(join(path, "allow_file")))})
	}
}

// validPrefixes reads the list at path, and reports its mistakes. It calls each for every element that is none.
func validPrefixes(r *report, path string, texts []string, each func(i int, p netip.Prefix)) []netip.Prefix {
	var prefixes []netip.Prefix
	for i, text := range texts {
		prefix, e := readPrefix(text)
		if e != nil {
			e.Found = quote(text)
			r.add(element(path, i), *e)
			continue
		}
		each(i, prefix)
		prefixes = append(prefixes, prefix)
	}
	return prefixes
}

// warnOfAccess reports a table that changes nothing, and prefixes that are denied without effect: clients that no
// prefix of allow contains are denied anyway. What files say is not known here.
func warnOfAccess(r *report, l *Listener) {
	a := &l.Access
	path := Path("listener", l.Name, "access")
	if a.On() && l.isOnlyUnix() {
		r.add(path, Error{Message: "clients of a Unix socket have no address: this table changes nothing, and permissions of " +
			"the listener says who may connect"})
		return
	}
	if len(a.Allow) == 0 || a.AllowFile != "" {
		return
	}
	for i, p := range a.DenyPrefixes {
		matters := slices.ContainsFunc(a.AllowPrefixes, func(allowed netip.Prefix) bool {
			return allowed.Bits() < p.Bits() && allowed.Contains(p.Addr())
		})
		if !matters {
			r.add(element(join(path, "deny"), i), Error{Found: quote(a.Deny[i]),
				Message: "no prefix of allow contains it, so that it is denied anyway: this prefix changes nothing"})
		}
	}
}
