package admin

import "strconv"

// maxNameLength is of a domain name as text: 255 bytes (RFC 1035, 2.3.4), each of which may be written as four, "\065".
const maxNameLength = 4 * 255

// DNS is what a listener with DNS settings has come to since these were last changed. docs/dns.md says what each of its
// numbers counts.
type DNS struct {
	InFlight    int       `json:"in_flight"` // questions at backends now
	Sockets     int       `json:"sockets"`   // that they are asked by
	Asked       uint64    `json:"asked"`     // questions sent to a backend, each try
	Answered    uint64    `json:"answered"`
	TimedOut    uint64    `json:"timed_out"`
	Unreachable uint64    `json:"unreachable"`
	Failed      uint64    `json:"failed"`          // questions that no backend has answered after all tries
	Mismatched  uint64    `json:"mismatched"`      // datagrams of backends that were no answer to anything asked
	Cache       *DNSCache `json:"cache,omitempty"` // nil without one
}

// DNSCache is what a listener's cache has done, and what it holds.
type DNSCache struct {
	Hit        uint64 `json:"hit"`
	Miss       uint64 `json:"miss"`
	Coalesced  uint64 `json:"coalesced"`
	Stale      uint64 `json:"stale"`
	Prefetched uint64 `json:"prefetched"`
	Passed     uint64 `json:"passed"`
	Refused    uint64 `json:"refused"`
	Rejected   uint64 `json:"rejected"`
	Stored     uint64 `json:"stored"`
	Evicted    uint64 `json:"evicted"`
	Expired    uint64 `json:"expired"`
	Entries    int    `json:"entries"` // now, those too that are over and not yet removed
	Bytes      int64  `json:"bytes"`   // of these
	Waiting    int    `json:"waiting"` // clients that wait for an answer now
}

// DNSPurge says which answers a cache is to forget: either those of Name, or All.
type DNSPurge struct {
	Name  string `json:"name,omitempty"`  // a domain name, with or without the final dot, in any case
	Below bool   `json:"below,omitempty"` // and all names below it
	All   bool   `json:"all,omitempty"`
}

func (s *Server) purgeDNS(a *asked) (any, error) {
	var p DNSPurge
	if err := s.readJSON(a, &p, false); err != nil {
		return nil, err
	}
	switch {
	case p.Name == "" && !p.All:
		return nil, newProblem(problemBadRequest, "the body purges nothing; it needs a name, or all").of("name")
	case p.Name != "" && p.All:
		return nil, newProblem(problemBadRequest, "all: it needs a name or all, and not both").of("all")
	case p.Below && p.All:
		return nil, newProblem(problemBadRequest, "below: it is for a name, and all is every name").of("below")
	case len(p.Name) > maxNameLength:
		return nil, invalid("name", p.Name, "a domain name, of at most "+strconv.Itoa(maxNameLength)+" characters")
	}
	n, err := s.balancer.PurgeDNS(a.PathValue("listener"), p)
	return purgedDNS{n}, err
}
