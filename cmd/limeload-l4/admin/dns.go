package admin

import "strconv"

// maxNameLength is the length of a domain name as text: 255 bytes (RFC 1035, 2.3.4), each of which may be written as
// four, "\065".
const maxNameLength = 4 * 255

// DNS counts the questions of a listener with DNS settings since these were last changed. docs/dns.md describes each
// number.
type DNS struct {
	InFlight    int       `json:"in_flight"` // questions that backends have not answered yet
	Sockets     int       `json:"sockets"`   // for these questions
	Asked       uint64    `json:"asked"`     // questions sent to backends; every try counts
	Answered    uint64    `json:"answered"`
	TimedOut    uint64    `json:"timed_out"`
	Unreachable uint64    `json:"unreachable"`
	Failed      uint64    `json:"failed"`          // questions that no backend has answered after all tries
	Mismatched  uint64    `json:"mismatched"`      // datagrams from backends that answer no question
	Cache       *DNSCache `json:"cache,omitempty"` // nil without a cache
}

// DNSCache counts the answers of a listener's cache, and describes its contents.
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
	Entries    int    `json:"entries"` // also expired ones that are not removed yet
	Bytes      int64  `json:"bytes"`   // of all entries
	Waiting    int    `json:"waiting"` // clients that wait for an answer
}

// DNSPurge selects the answers to remove from a cache: either those of Name, or All.
type DNSPurge struct {
	Name  string `json:"name,omitempty"`  // a domain name, with or without the final dot, in any case
	Below bool   `json:"below,omitempty"` // also all names below it
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
