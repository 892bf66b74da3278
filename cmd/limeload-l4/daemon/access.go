package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/conf/file"
	"github.com/limeload/limeload-l4/l4"
)

// maxListBytes bounds a file of prefixes: as many as conf.MaxPrefixes have 0.5 GB at most, without comments.
const maxListBytes = 1 << 30

// An accessList says who may come in at a listener, by its configuration and the files that this names. It is
// immutable, and shared by listeners that say the same.
type accessList struct {
	inputs          accessInputs
	list            *l4.AccessList
	allowed, denied int // prefixes

	// How many prefixes files have both allowed and denied, and the first of them. They are denied.
	both      int
	firstBoth netip.Prefix
}

// accessInputs are what an accessList is made of. Equal inputs make equal lists.
type accessInputs struct {
	allow, deny         string // the prefixes in the configuration
	allowFile, denyFile content
}

// accessLists are the lists by listener; those that let everybody in are left out. It is immutable.
type accessLists map[string]*accessList

// of returns a listener's list for the data plane; nil lets everybody in.
func (a accessLists) of(listener string) *l4.AccessList {
	if one := a[listener]; one != nil {
		return one.list
	}
	return nil
}

// An accessReader makes the lists of one configuration. It is used by one goroutine.
type accessReader struct {
	// set once, then read-only
	cfg  *conf.Config
	in   accessLists // in force
	from *files

	made map[accessInputs]*accessList // those in force, and those made here
}

func newAccessReader(cfg *conf.Config, in accessLists, from *files) *accessReader {
	r := &accessReader{cfg: cfg, in: in, from: from, made: make(map[accessInputs]*accessList)}
	for _, a := range in {
		r.made[a.inputs] = a
	}
	return r
}

// proposeAccess makes the lists of a configuration, for which it reads the files that this names. in is what is in
// force: a list whose inputs are the same is kept. An error has the places of the mistakes.
func proposeAccess(cfg *conf.Config, in accessLists, from *files) (lists accessLists, warnings []string, err error) {
	r := newAccessReader(cfg, in, from)
	lists = make(accessLists)
	var mistakes []error
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		a, err := r.list(l)
		if mistakes = append(mistakes, err); a != nil {
			lists[l.Name] = a
			warnings = append(warnings, a.warnings(cfg, l)...)
		}
	}
	return lists, warnings, errors.Join(mistakes...)
}

// accessPath returns the path of a listener's table access.
func accessPath(l *conf.Listener) string { return conf.Path("listener", l.Name, "access") }

// list returns a listener's list, nil if it lets everybody in. It is the one in force if its inputs are the same.
func (r *accessReader) list(l *conf.Listener) (*accessList, error) {
	c := &l.Access
	if !c.On() {
		return nil, nil
	}
	inputs := accessInputs{allow: fmt.Sprint(c.AllowPrefixes), deny: fmt.Sprint(c.DenyPrefixes)}
	path := accessPath(l)
	// The first reading is for the sums alone: most files are as they were.
	discard := func(_ string, from io.Reader) error {
		_, err := io.Copy(io.Discard, from)
		return err
	}
	var err error
	if inputs.allowFile, err = r.read(path+".allow_file", c.AllowFile, discard); err == nil {
		inputs.denyFile, err = r.read(path+".deny_file", c.DenyFile, discard)
	}
	switch {
	case errors.Is(err, errNotRead): // a plan, which is never put in force
		return &accessList{list: l4.NewAccessList(false)}, nil
	case err != nil:
		return nil, err
	}
	if a := r.in[l.Name]; a != nil && a.inputs == inputs {
		return a, nil
	}
	if a := r.made[inputs]; a != nil {
		return a, nil
	}
	a, err := r.make(inputs, path, c)
	if err == nil {
		r.made[a.inputs] = a
	}
	return a, err
}

// make makes a list. Its inputs may not be the given ones any more: files may have changed.
func (r *accessReader) make(inputs accessInputs, path string, c *conf.Access) (*accessList, error) {
	a := &accessList{inputs: inputs, list: l4.NewAccessList(c.AllowOnly())}
	deny := func(p netip.Prefix) {
		if a.list.Deny(p) {
			return
		}
		if a.both++; a.both == 1 {
			a.firstBoth = p
		}
	}
	for _, p := range c.AllowPrefixes {
		a.list.Allow(p)
	}
	var mistakes []error
	take := func(in *content, key, name string, add func(netip.Prefix)) {
		var err error
		*in, err = r.read(path+"."+key, name, func(path string, from io.Reader) error {
			return conf.ReadPrefixes(path, from, add)
		})
		mistakes = append(mistakes, err)
	}
	take(&a.inputs.allowFile, "allow_file", c.AllowFile, func(p netip.Prefix) { a.list.Allow(p) })
	a.allowed = a.list.Len()
	for _, p := range c.DenyPrefixes {
		deny(p)
	}
	take(&a.inputs.denyFile, "deny_file", c.DenyFile, deny)
	a.denied = a.list.Len() - a.allowed + a.both
	a.allowed -= a.both
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return a, nil
}

// read calls use with the path and the contents of the file name, the value of key, and returns what identifies the
// contents; nothing if name is "". An error about the contents has its place in the file, and another one that of the
// key.
func (r *accessReader) read(key, name string, use func(path string, from io.Reader) error) (content, error) {
	if name == "" {
		return content{}, nil
	}
	err := r.from.stream(key, name, use)
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		return content{}, r.cfg.ErrorAt(key, err)
	}
	return r.from.seen[key], err
}

// warnings returns what is allowed in the files of a listener, but probably not meant.
func (a *accessList) warnings(cfg *conf.Config, l *conf.Listener) (warnings []string) {
	path := accessPath(l)
	warn := func(key, format string, args ...any) {
		warnings = append(warnings, cfg.ErrorAt(path+"."+key, fmt.Errorf(format, args...)).Error())
	}
	if a.both == 1 {
		warn("deny_file", "%v is both allowed and denied: it is denied", a.firstBoth)
	} else if a.both > 1 {
		warn("deny_file", "%v and %d more prefixes are both allowed and denied: they are denied", a.firstBoth, a.both-1)
	}
	if l.Access.AllowOnly() && a.allowed == 0 && a.inputs.allowFile != (content{}) {
		warn("allow_file", "%q has no prefix: every client is denied", cfg.FilePath(l.Access.AllowFile))
	}
	return warnings
}

// stream calls use with the path and the contents of the file name, a list that is the value of key. It returns the
// error of use.
func (f *files) stream(key, name string, use func(path string, from io.Reader) error) error {
	path := conf.FilePath(f.config, name)
	if f.only != nil && !f.onlyLists[path] {
		f.unread = append(f.unread, fmt.Sprintf("%s: %q", key, path))
		return errNotRead
	}
	sum := sha256.New()
	err := file.Stream(path, maxListBytes, func(from io.Reader) error { return use(path, io.TeeReader(from, sum)) })
	if err == nil {
		f.seen[key] = content{path: path, sum: [sha256.Size]byte(sum.Sum(nil)), isList: true}
	}
	return err
}
