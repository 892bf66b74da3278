package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery/etcd"
	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

const (
	// maxEtcdValueBytes bounds the value of one backend, which has some hundred bytes.
	maxEtcdValueBytes = 16 << 10
	// maxUnusableBytes bounds what is said about one key that is no backend.
	maxUnusableBytes = 300
	// readEtcdAgain is how often all keys are read again, although they are watched. No key changes so often that a
	// watch which delivers nothing could be told from one with nothing to deliver. Ten thousand keys are some 2 MB.
	readEtcdAgain = time.Minute
	// lookHereAgain is how often the addresses of this machine are looked at again: an address may move here.
	lookHereAgain = 10 * time.Second
	// shownBeside bounds the names in an error.
	shownBeside = 5
)

// An Etcd finds backends in etcd: each key below a prefix is one, in the order of the keys. So a server can register
// itself with a key under a lease, and is gone when it does not renew it.
//
// A key that is no usable backend is left out and reported. Of two keys with the same name or address, the first in the
// order of the keys is used. If there are keys and none is usable, that is an error. No key at all is an answer: there
// is no backend.
//
// While Watch runs, it keeps a copy of the keys up to date, and Find answers from that. Otherwise each Find asks.
// Members of etcd are asked in turn, and only an answer that a majority of etcd confirms counts.
//
// Find may run beside Watch. The zero value is of no use, see NewEtcd.
type Etcd struct {
	etcdCopy
	o EtcdOptions // set once, then read-only

	// etcdCopy.mu guards the fields below
	found  map[string]etcdBackend // by key, without the prefix
	beside []string               // other names that stand where the prefix does, if there is no key below it

	// only Find uses the fields below
	here   map[netip.Addr]bool // whether it is an address of this machine
	looked time.Time           // when here was empty
}

// An etcdBackend is a key and what its value says. It is a plain value.
type etcdBackend struct {
	revision int64
	spec     pool.Spec
	wrong    string // why it is no backend; "" if it is
}

// EtcdOptions are the settings of an Etcd. It is a plain value.
type EtcdOptions struct {
	Endpoints     []string // URLs of members of etcd, at least one, all http or all https
	Prefix        string   // of the keys, with a slash at the end
	User          string   // "": without a login
	Password      string
	TLS           *tls.Config // for https; nil: as Go does
	AllowLoopback bool        // allows addresses of this machine, Unix sockets and link-local addresses
	// Parse returns the backend that the value of a key describes, or an error of one line that says what is wrong with
	// it. name is the last part of the key.
	Parse func(name string, value []byte) (pool.Spec, error)
}

// NewEtcd returns a source that connects to nothing before Find or Watch.
func NewEtcd(o EtcdOptions) *Etcd {
	e := &Etcd{o: o}
	e.etcdCopy = etcdCopy{
		login: etcd.Login{User: o.User, Password: o.Password, TLS: o.TLS}, endpoints: o.Endpoints, prefix: o.Prefix,
		most: maxBackends, again: readEtcdAgain, keeper: e, settled: make(chan struct{}),
	}
	return e
}

// Find returns the backends as they are known now. The error is a *ClusterError, or several, unless ctx ends.
func (e *Etcd) Find(ctx context.Context) (Found, error) {
	if _, err := e.ready(ctx); err != nil {
		return Found{}, err
	}
	e.mu.Lock()
	found, beside := maps.Clone(e.found), e.beside
	e.mu.Unlock()
	if len(found) == 0 {
		return Found{Unusable: e.none(beside)}, nil
	}
	if time.Since(e.looked) > lookHereAgain {
		e.here, e.looked = make(map[netip.Addr]bool), time.Now()
	}
	specs, wrong := e.choose(found)
	switch {
	case len(specs) == 0:
		return Found{}, &ClusterError{What: "etcd", Endpoints: e.endpoints, Kind: ErrBadBackend, Detail: someOf(wrong)}
	case len(wrong) > 0:
		return Found{Backends: specs, Unusable: errors.New(someOf(wrong))}, nil
	}
	return Found{Backends: specs}, nil
}

// Watch keeps the copy of the keys up to date, and calls changed whenever Find has another answer or error, until ctx
// is done. It returns when no member of etcd answers.
func (e *Etcd) Watch(ctx context.Context, changed func()) error { return e.watch(ctx, changed) }

// none says that there is no key, and which prefix may have been meant.
func (e *Etcd) none(beside []string) error {
	detail := "no key is below " + reach.Quote(e.prefix)
	if len(beside) > 0 {
		detail += "; the names beside it are " + quotedNames(beside, shownBeside)
	}
	return &ClusterError{What: "etcd", Endpoints: e.endpoints, Kind: ErrNoBackend, Detail: detail}
}

// choose returns the backends in the order of their keys, and what is wrong with the other keys.
func (e *Etcd) choose(found map[string]etcdBackend) (specs []pool.Spec, wrong []string) {
	names, addresses := make(map[string]string), make(map[pool.Address]string) // the keys that have them
	for _, key := range slices.Sorted(maps.Keys(found)) {
		b := found[key]
		text := b.wrong
		if text == "" {
			text = e.checkPlace(b.spec.Addr)
		}
		if other, taken := names[b.spec.ID]; text == "" && taken {
			text = fmt.Sprintf("%s has the same name, %s", reach.Quote(other), reach.Quote(b.spec.ID))
		}
		if other, taken := addresses[b.spec.Addr]; text == "" && taken {
			text = fmt.Sprintf("%s has the same address, %s", reach.Quote(other), reach.Quote(b.spec.Addr.String()))
		}
		if text != "" {
			wrong = append(wrong, reach.Quote(key)+": "+text)
			continue
		}
		names[b.spec.ID], addresses[b.spec.Addr] = key, key
		specs = append(specs, b.spec)
	}
	return specs, wrong
}

// checkPlace says what is wrong with the place of an address; "" if nothing is. Whoever may write a key must not be
// able to open what listens for this machine only, such as the control API, to every client.
func (e *Etcd) checkPlace(addr pool.Address) string {
	const allows = "; allow_loopback = true allows it"
	if e.o.AllowLoopback {
		return ""
	}
	if addr.Path != "" {
		return "a Unix socket is of this machine" + allows
	}
	ip := addr.Addr()
	here, known := e.here[ip]
	if !known {
		var err error
		if here, err = isHere(ip); err != nil {
			return fmt.Sprintf("find out whether %s is an address of this machine: %v", ip, err)
		}
		e.here[ip] = here
	}
	if here {
		return fmt.Sprintf("%s is an address of this machine or its link", ip) + allows
	}
	return ""
}

// accept looks, if there is no key, for the names that may have been meant.
func (e *Etcd) accept(s *etcd.Session, keys []etcd.KeyChange) error {
	var beside []string
	if len(keys) == 0 {
		parent := strings.TrimSuffix(path.Dir(strings.TrimSuffix(e.prefix, "/")), "/") + "/"
		beside = s.Names(parent, shownBeside)
	}
	e.mu.Lock()
	e.beside = beside
	e.mu.Unlock()
	return nil
}

// replaceLocked sets the keys, and reports whether a backend has changed.
func (e *Etcd) replaceLocked(keys []etcd.KeyChange) (changed bool) {
	before := e.found
	e.found = make(map[string]etcdBackend, len(keys))
	for _, k := range keys {
		if old, is := before[k.Key]; is && old.revision == k.Revision {
			e.found[k.Key] = old
		} else {
			e.found[k.Key] = e.read(k)
		}
	}
	return !maps.EqualFunc(before, e.found, etcdBackend.same)
}

// applyLocked takes up changes, and reports whether a backend has changed.
func (e *Etcd) applyLocked(changes []etcd.KeyChange) (changed bool, err error) {
	for _, k := range changes {
		old, is := e.found[k.Key]
		if k.Value == nil {
			delete(e.found, k.Key)
			changed = changed || is
			continue
		}
		b := e.read(k)
		e.found[k.Key] = b
		changed = changed || !is || !b.same(old)
	}
	if len(e.found) > maxBackends {
		e.found = nil // they are read again
		return true, &ClusterError{What: "etcd", Endpoints: e.endpoints, Kind: ErrTooMuchData,
			Detail: fmt.Sprintf("the keys below %s: %v: more than %d", reach.Quote(e.prefix), etcd.ErrTooMany, maxBackends)}
	}
	return changed, nil
}

// same reports whether two values of a key mean the same.
func (b etcdBackend) same(other etcdBackend) bool {
	return b.spec == other.spec && b.wrong == other.wrong
}

// read returns what the value of a key says.
func (e *Etcd) read(k etcd.KeyChange) etcdBackend {
	b := etcdBackend{revision: k.Revision}
	if k.Large || len(k.Value) > maxEtcdValueBytes {
		b.wrong = fmt.Sprintf("its value has more than %d bytes", maxEtcdValueBytes)
		return b
	}
	spec, err := e.o.Parse(k.Key[strings.LastIndexByte(k.Key, '/')+1:], k.Value)
	if err != nil {
		b.wrong = err.Error()
		if len(b.wrong) > maxUnusableBytes {
			b.wrong = strings.ToValidUTF8(b.wrong[:maxUnusableBytes], "") + "..."
		}
		return b
	}
	b.spec = spec
	return b
}
