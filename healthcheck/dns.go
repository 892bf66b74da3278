package healthcheck

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ednsBytes is the largest answer by UDP that is asked for (DNS flag day 2020: what no path fragments).
const ednsBytes = 1232

// DNS checks that a server answers a query by one of the wanted codes. It is a plain value; its zero value asks the
// target's own port for the address of the root, and takes NOERROR.
//
// Only the answer's code counts, not its records; a truncated answer is an answer. What comes from elsewhere, with another
// id or with another question is ignored until the deadline, since anybody may send it; by TCP it is the server's, and
// fails at once. By UDP the query is sent again once, halfway.
type DNS struct {
	Port   uint16             // instead of the target's; 0 = the target's
	Name   string             // with or without the final dot; "" = the root
	Type   dnsmessage.Type    // 0 = A
	Rcodes []dnsmessage.RCode // wanted; empty = NOERROR alone
	TCP    bool               // ask by TCP instead of UDP
}

// dnsTypes are the types that ParseDNSQuery knows.
var dnsTypes = []struct {
	name string
	typ  dnsmessage.Type
}{
	{"A", dnsmessage.TypeA}, {"AAAA", dnsmessage.TypeAAAA}, {"NS", dnsmessage.TypeNS}, {"SOA", dnsmessage.TypeSOA},
	{"MX", dnsmessage.TypeMX}, {"TXT", dnsmessage.TypeTXT}, {"SRV", dnsmessage.TypeSRV}, {"CNAME", dnsmessage.TypeCNAME},
	{"PTR", dnsmessage.TypePTR},
}

// ParseDNSQuery reads a query as in "example.com AAAA"; without a type it is for A. The name it returns ends with a dot.
func ParseDNSQuery(s string) (name string, typ dnsmessage.Type, err error) {
	words := strings.Fields(s)
	switch {
	case len(words) == 0:
		return "", 0, errors.New(`empty dns query: want a name and a type, as in "example.com A"`)
	case len(words) > 2:
		return "", 0, fmt.Errorf(`dns query %q has %d words: want a name and a type, as in "example.com A"`, s, len(words))
	}
	n, err := dnsName(words[0])
	if err != nil {
		return "", 0, err
	}
	if len(words) == 1 {
		return n.String(), dnsmessage.TypeA, nil
	}
	var known []string
	for _, t := range dnsTypes {
		if strings.EqualFold(t.name, words[1]) {
			return n.String(), t.typ, nil
		}
		known = append(known, t.name)
	}
	return "", 0, fmt.Errorf("unknown dns type %q: want one of %s", words[1], strings.Join(known, ", "))
}

// dnsName returns a name as it goes into a query. Escapes ("\.") are not known.
func dnsName(s string) (dnsmessage.Name, error) {
	const (
		maxName  = 254 // RFC 1035, 2.3.4: 255 bytes on the wire, of which this form lacks the first length
		maxLabel = 63  // RFC 1035, 2.3.4
	)
	s = strings.TrimSuffix(s, ".")
	if len(s)+1 > maxName {
		return dnsmessage.Name{}, fmt.Errorf("dns name of %d characters: want up to %d", len(s), maxName-1)
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "" && s != "":
			return dnsmessage.Name{}, fmt.Errorf("dns name %q has an empty label", s)
		case len(label) > maxLabel:
			return dnsmessage.Name{}, fmt.Errorf("dns name %q has a label of %d characters: want up to %d", s, len(label), maxLabel)
		case strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
			return dnsmessage.Name{}, fmt.Errorf("dns name %q: want printable ASCII (xn-- for the rest), and no \\", s)
		}
	}
	return dnsmessage.NewName(s + ".")
}

// Check asks t.
func (c DNS) Check(ctx context.Context, t Target) (Result, error) {
	q, err := c.query()
	if err != nil {
		return Result{}, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	start := time.Now()
	exchange := c.overUDP
	if c.TCP {
		exchange = c.overTCP
	}
	rcode, err := exchange(ctx, t, q)
	if err != nil {
		return Result{}, err
	}
	latency := time.Since(start)
	if wanted := c.wanted(); !slices.Contains(wanted, rcode) {
		return Result{}, unhealthyf("answered %s, wanted %s", rcodeName(rcode), rcodeNames(wanted))
	}
	return Result{Latency: latency, Detail: "answered " + rcodeName(rcode)}, nil
}

// wanted returns the codes that are fine.
func (c DNS) wanted() []dnsmessage.RCode {
	if len(c.Rcodes) == 0 {
		return []dnsmessage.RCode{dnsmessage.RCodeSuccess}
	}
	return c.Rcodes
}

// A dnsQuery is a query on its way. Its zero value is of no use.
type dnsQuery struct {
	id       uint16
	question dnsmessage.Question
	packed   []byte
}

// query makes the query, with an id that nobody can guess.
func (c DNS) query() (dnsQuery, error) {
	name, err := dnsName(c.Name)
	if err != nil {
		return dnsQuery{}, err
	}
	var id [2]byte
	rand.Read(id[:]) // never fails
	q := dnsQuery{id: binary.BigEndian.Uint16(id[:])}
	q.question = dnsmessage.Question{Name: name, Type: c.Type, Class: dnsmessage.ClassINET}
	if q.question.Type == 0 {
		q.question.Type = dnsmessage.TypeA
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: q.id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{q.question},
		Additionals: []dnsmessage.Resource{{Body: &dnsmessage.OPTResource{}}},
	}
	if err := m.Additionals[0].Header.SetEDNS0(ednsBytes, dnsmessage.RCodeSuccess, false); err != nil {
		return dnsQuery{}, err
	}
	q.packed, err = m.Pack()
	return q, err
}

// overUDP asks by UDP and returns the answer's code.
func (c DNS) overUDP(ctx context.Context, t Target, q dnsQuery) (dnsmessage.RCode, error) {
	start := time.Now()
	until, _ := ctx.Deadline()
	var rcode dnsmessage.RCode
	var ignored error
	answered, err := exchangeUDP(ctx, atPort(t, c.Port), q.packed, until, func(b []byte) bool {
		var err error
		if rcode, err = q.read(b); err != nil {
			ignored = err
		}
		return err == nil
	})
	switch {
	case err != nil:
		return 0, err
	case answered:
		return rcode, nil
	}
	err = silenceError(ctx, start, "the answer")
	if ignored != nil && !errors.Is(err, ErrInconclusive) {
		return 0, unhealthyf("%v, ignored: %v", err, ignored).because(err, ignored)
	}
	return 0, err
}

// overTCP asks by TCP and returns the answer's code.
func (c DNS) overTCP(ctx context.Context, t Target, q dnsQuery) (dnsmessage.RCode, error) {
	k, err := openTalk(ctx, t, c.Port, nil, "")
	if err != nil {
		return 0, err
	}
	defer k.part(ctx)
	sent := binary.BigEndian.AppendUint16(nil, uint16(len(q.packed)))
	if _, err := k.Write(append(sent, q.packed...)); err != nil { // in one piece: some servers read but once
		return 0, k.failure(ctx, err, "the end of sending")
	}
	var length [2]byte
	if _, err := io.ReadFull(k, length[:]); err != nil {
		return 0, k.failure(ctx, err, "the answer")
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if n, err := io.ReadFull(k, b); err != nil {
		// Text of another protocol promises a length that never comes.
		err := k.failure(ctx, err, "the end of the answer")
		if got := append(length[:], b[:n]...); q.headerError(b[:n]) != nil && !errors.Is(err, ErrInconclusive) {
			return 0, unhealthyf("not dns: answer begins with %s", quoted(got[:min(len(got), 4*longestQuote)])).because(err)
		}
		return 0, err
	}
	return q.read(b)
}

// headerError says what is wrong with the first bytes of what should be the answer.
func (q dnsQuery) headerError(b []byte) error {
	var p dnsmessage.Parser
	switch h, err := p.Start(b); {
	case err != nil:
		return unhealthyf("not dns: %s", quoted(b[:min(len(b), 4*longestQuote)])).because(err)
	case !h.Response:
		return unhealthyf("not an answer, but a query")
	case h.ID != q.id:
		return unhealthyf("answer to another query")
	}
	return nil
}

// read returns the code of the answer b, or says why it is not one to q.
func (q dnsQuery) read(b []byte) (dnsmessage.RCode, error) {
	if err := q.headerError(b); err != nil {
		return 0, err
	}
	garbled := func(err error) error { return unhealthyf("garbled answer").because(err) }
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil {
		return 0, garbled(err)
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return 0, garbled(err)
	}
	if len(questions) != 1 || !sameQuestion(questions[0], q.question) {
		return 0, unhealthyf("answer to another question")
	}
	if h.Truncated { // it may end anywhere
		return h.RCode, nil
	}
	if err := errors.Join(p.SkipAllAnswers(), p.SkipAllAuthorities()); err != nil {
		return 0, garbled(err)
	}
	for {
		r, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return h.RCode, nil
		}
		if err != nil {
			return 0, garbled(err)
		}
		if r.Type == dnsmessage.TypeOPT {
			h.RCode = r.ExtendedRCode(h.RCode) // which has bits that the header has no room for
		}
		if err := p.SkipAdditional(); err != nil {
			return 0, garbled(err)
		}
	}
}

// sameQuestion reports whether a and b ask the same. The case of letters does not matter (RFC 1035, 2.3.3).
func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// rcodeName returns a code as the tools of the DNS write it.
func rcodeName(r dnsmessage.RCode) string {
	switch r {
	case dnsmessage.RCodeSuccess:
		return "NOERROR"
	case dnsmessage.RCodeFormatError:
		return "FORMERR"
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeNameError:
		return "NXDOMAIN"
	case dnsmessage.RCodeNotImplemented:
		return "NOTIMP"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	}
	return fmt.Sprintf("RCODE%d", uint16(r)) // as RFC 3597 does with types
}

// rcodeNames returns codes as a person would list them.
func rcodeNames(rs []dnsmessage.RCode) string {
	var names []string
	for _, r := range rs {
		names = append(names, rcodeName(r))
	}
	return strings.Join(names, " or ")
}
