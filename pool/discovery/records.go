package discovery

import (
	"context"
	"strings"

	"github.com/miekg/dns"
)

// records has the records of one type that an answer has for one name, with aliases followed. It is immutable.
type records struct {
	name  string   // asked for
	found []dns.RR // at least one, all of the type asked for
	extra []dns.RR // records that the server expects us to ask for next
	ttl   uint32   // seconds; the least of the records and of the aliases that lead to them
}

// lookup asks for the records of a name. If there are none, the error is a *LookupError of the kind ErrNoSuchName or
// ErrNoRecords.
func (r resolvers) lookup(ctx context.Context, name string, qtype uint16) (records, error) {
	m, err := r.query(ctx, name, qtype)
	if err != nil {
		return records{}, err
	}
	found, e := recordsOf(m, name, qtype)
	if e != nil {
		e.Name, e.Type = name, dns.TypeToString[qtype]
		return records{}, e
	}
	return found, nil
}

// recordsOf returns the records of an answer that belong to name. The error lacks its name.
func recordsOf(m *dns.Msg, name string, qtype uint16) (records, *LookupError) {
	owner, ttl, ok := followAliases(m.Answer, name)
	switch {
	case m.Rcode == dns.RcodeNameError:
		return records{}, &LookupError{Rcode: m.Rcode, Kind: ErrNoSuchName, Detail: behindAlias(name, owner)}
	case !ok:
		return records{}, &LookupError{Kind: ErrBadAnswer, Detail: "aliases in a circle"}
	}
	r := ofOwner(m.Answer, owner, qtype)
	if len(r.found) == 0 {
		return records{}, &LookupError{Kind: ErrNoRecords, Detail: behindAlias(name, owner)}
	}
	r.name, r.extra, r.ttl = name, m.Extra, min(r.ttl, ttl)
	return r, nil
}

// ofOwner returns the records in rrs of one owner and type.
func ofOwner(rrs []dns.RR, owner string, qtype uint16) records {
	r := records{name: owner, ttl: maxTTL}
	for _, rr := range rrs {
		if h := rr.Header(); h.Rrtype == qtype && h.Class == dns.ClassINET && strings.EqualFold(h.Name, owner) {
			r.found = append(r.found, rr)
			r.ttl = min(r.ttl, seconds(h))
		}
	}
	return r
}

// followAliases returns the name at the end of the CNAME records from name on, and the least of their TTLs. ok is false
// if the aliases form a loop.
func followAliases(answer []dns.RR, name string) (owner string, ttl uint32, ok bool) {
	aliases := make(map[string]*dns.CNAME)
	for _, rr := range answer {
		if c, is := rr.(*dns.CNAME); is && c.Hdr.Class == dns.ClassINET {
			aliases[strings.ToLower(c.Hdr.Name)] = c
		}
	}
	ttl = maxTTL
	for range len(aliases) + 1 {
		c := aliases[strings.ToLower(name)]
		if c == nil {
			return name, ttl, true
		}
		name, ttl = c.Target, min(ttl, seconds(&c.Hdr))
	}
	return name, ttl, false
}

// behindAlias says which name a reader should look at, if it is another one than was asked for.
func behindAlias(name, owner string) string {
	if strings.EqualFold(name, owner) {
		return ""
	}
	return "it is an alias of " + owner
}

const maxTTL = 1<<31 - 1 // RFC 2181, 8

// seconds returns a record's TTL.
func seconds(h *dns.RR_Header) uint32 {
	if h.Ttl > maxTTL {
		return 0 // RFC 2181, 8
	}
	return h.Ttl
}
