package discovery

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/conf/file"
)

// resolvConf is where the system's resolvers stand. It is read anew at each Find: networks change.
const resolvConf = "/etc/resolv.conf"

// maxResolvConfBytes is how large that file may be: more than any list of servers and domains takes.
const maxResolvConfBytes = 64 << 10

// The limits of resolv.conf(5), which keep a slip of the pen there from making a lookup take hours.
const (
	maxServers        = 3
	maxTimeoutSeconds = 30
	maxAttempts       = 5
	maxSearched       = 6 // domains of the search list
)

// How a resolver given by the operator is asked. It is taken for near, unlike those for whom resolv.conf(5) has 5 s and
// two attempts, so that a lost packet costs little.
const (
	givenTimeout  = 2 * time.Second
	givenAttempts = 3
)

// resolvers are servers and the way to ask them. They are immutable, but for the count of what they are asked.
type resolvers struct {
	servers  []string                   // "IP:PORT", at least one; the next is asked when one fails
	timeout  time.Duration              // of one question to one server
	attempts int                        // rounds through the servers
	names    func(name string) []string // the fully qualified names that a name may stand for, in order

	questions *atomic.Int64 // put to the servers so far; nil: they are not counted
}

func (r resolvers) count() {
	if r.questions != nil {
		r.questions.Add(1)
	}
}

// asked returns how many questions were sent to the servers.
func (r resolvers) asked() int {
	if r.questions == nil {
		return 0
	}
	return int(r.questions.Load())
}

// newResolvers returns the resolver at given, without search domains, or the system's if given is empty.
func newResolvers(given string) (resolvers, error) {
	if given == "" {
		return systemResolvers(resolvConf)
	}
	if _, err := netip.ParseAddrPort(given); err != nil {
		return resolvers{}, err
	}
	absolute := func(name string) []string { return []string{dns.Fqdn(name)} }
	return resolvers{servers: []string{given}, timeout: givenTimeout, attempts: givenAttempts, names: absolute,
		questions: new(atomic.Int64)}, nil
}

// systemResolvers returns the resolvers of a resolv.conf(5). Without the file, or without a server in it, that is the
// server on this machine.
func systemResolvers(path string) (resolvers, error) {
	// not dns.ClientConfigFromFile, which takes a read error for the end of the file
	text, err := file.Read(path, maxResolvConfBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return resolvers{}, err
	}
	conf, err := dns.ClientConfigFromReader(bytes.NewReader(text))
	if err != nil {
		return resolvers{}, err
	}
	r := resolvers{
		timeout:  time.Duration(min(conf.Timeout, maxTimeoutSeconds)) * time.Second,
		attempts: min(conf.Attempts, maxAttempts),
		names:    conf.NameList,

		questions: new(atomic.Int64),
	}
	for _, server := range conf.Servers {
		if _, err := netip.ParseAddr(server); err == nil && len(r.servers) < maxServers {
			r.servers = append(r.servers, net.JoinHostPort(server, conf.Port))
		}
	}
	if len(r.servers) == 0 {
		r.servers = []string{net.JoinHostPort("127.0.0.1", conf.Port)}
	}
	// systemd-resolved writes "search ." for none
	conf.Search = slices.DeleteFunc(conf.Search, func(domain string) bool { return domain == "." })
	conf.Search = conf.Search[:min(len(conf.Search), maxSearched)]
	return r, nil
}

// search calls lookup for the names that name may stand for, until one has records or cannot be looked up: going on
// after a failure might find the backends of another name. If all are empty, the error is that of the first name that
// exists, or of the first.
func search[T any](r resolvers, name, qtype string, lookup func(name string) (T, error)) (T, error) {
	var nothing T
	var first error
	for _, n := range r.names(name) {
		n, err := canonical(n)
		if err != nil {
			continue // too long with this domain appended, or not a domain name
		}
		found, err := lookup(n)
		if err == nil || !empty(err) {
			return found, err
		}
		if first == nil || errors.Is(first, ErrNoSuchName) && errors.Is(err, ErrNoRecords) {
			first = err
		}
	}
	if first == nil {
		return nothing, &LookupError{Name: name, Type: qtype, Kind: ErrBadName}
	}
	return nothing, first
}

// canonical returns a name in the form that the library uses for names in messages, so that they can be compared.
func canonical(name string) (string, error) {
	if _, ok := dns.IsDomainName(name); !ok || strings.TrimSuffix(name, ".") == "" {
		return "", ErrBadName
	}
	wire := make([]byte, maxNameBytes)
	if _, err := dns.PackDomainName(dns.Fqdn(name), wire, 0, nil, false); err != nil {
		return "", err
	}
	name, _, err := dns.UnpackDomainName(wire, 0)
	return name, err
}

// maxNameBytes is the longest name in a message (RFC 1035, 3.1).
const maxNameBytes = 255

// query asks for the records of one name and type. The answer says that they exist or that they do not; everything else
// is a *LookupError, that of the server asked last.
func (r resolvers) query(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	var last *LookupError
	for range r.attempts {
		for _, server := range r.servers {
			m, err := r.ask(ctx, server, question(name, qtype))
			if err == nil {
				err = failure(m)
			}
			if err == nil {
				return m, nil
			}
			last = err.(*LookupError) // ask and failure return no other
			last.Name, last.Type, last.Server = name, dns.TypeToString[qtype], server
			if ctx.Err() != nil {
				return nil, last
			}
		}
	}
	return nil, last
}

// question returns a query with a random id.
func question(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype).SetEdns0(udpSize, false)
}

// failure returns the error of an answer that does not say whether there are records.
func failure(m *dns.Msg) error {
	switch m.Rcode {
	case dns.RcodeSuccess:
		if len(m.Answer) == 0 && !m.Authoritative && !m.RecursionAvailable {
			// a referral
			return &LookupError{Kind: ErrServerFailed, Detail: "it knows nothing of the name and asks nobody"}
		}
		return nil
	case dns.RcodeNameError:
		return nil
	}
	e := &LookupError{Kind: ErrServerFailed, Rcode: m.Rcode, Detail: dns.RcodeToString[m.Rcode]}
	if m.Rcode == dns.RcodeRefused {
		e.Kind = ErrRefused
	}
	return e
}
