package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/healthcheck"
)

// ednsBytes is the largest answer over UDP that the query allows (DNS flag day 2020: no path fragments it).
const ednsBytes = 1232

// Sizes on the wire (RFC 1035, 4.1 and 2.3.4).
const (
	dnsHeaderBytes   = 12
	dnsQuestionBytes = 255 + 4 // the longest name, a type and a class
	dnsRecordBytes   = 10      // the fixed part of a record, between its name and its data
)

// DNS checks that a server answers a query with one of the wanted codes. It is a plain value; its zero value asks the
// target's own port for the address of the root, and wants NOERROR.
//
// Only the answer's code counts, not its records; a truncated answer will do. Over UDP, a datagram with another id or
// another question is ignored until the deadline, since anybody may have sent it. Over TCP it is from the server, and
// the check fails at once. Over UDP the query is sent a second time halfway through the check's time.
type DNS struct {
	Port   uint16 // instead of the target's; 0 = the target's
	Name   string // with or without the final dot; "" = the root
	Type   uint16 // dns.TypeAAAA and so on; 0 = A
	Rcodes []int  // the wanted codes: dns.RcodeNameError and so on; empty = NOERROR alone
	TCP    bool   // ask over TCP instead of UDP
}

// dnsTypes returns the names of the types that ParseDNSQuery knows.
func dnsTypes() []string {
	return []string{"A", "AAAA", "NS", "SOA", "MX", "TXT", "SRV", "CNAME", "PTR"}
}

// ParseDNSQuery parses a query such as "example.com AAAA"; the default type is A. The name it returns ends with a dot.
// Errors say what is allowed.
func ParseDNSQuery(s string) (name string, typ uint16, err error) {
	words := strings.Fields(s)
	switch {
	case len(words) == 0:
		return "", 0, errors.New(`empty dns query: want a name and a type, as in "example.com A"`)
	case len(words) > 2:
		return "", 0, fmt.Errorf(
			`dns query %q has %d words: want a name and a type, as in "example.com A"`, s, len(words))
	}
	if name, err = dnsName(words[0]); err != nil {
		return "", 0, err
	}
	if len(words) == 1 {
		return name, dns.TypeA, nil
	}
	if known := strings.ToUpper(words[1]); slices.Contains(dnsTypes(), known) {
		return name, dns.StringToType[known], nil
	}
	return "", 0, fmt.Errorf("unknown dns type %q: want one of %s", words[1], strings.Join(dnsTypes(), ", "))
}

// dnsName returns a name in the form for a query: with the final dot. It refuses escapes ("\.").
//
// The rules are written by hand because dns.IsDomainName only says that a name is wrong, and the operator needs to know
// what is wrong with it.
func dnsName(s string) (string, error) {
	const (
		maxName  = 254 // RFC 1035, 2.3.4: 255 bytes on the wire, where the name begins with a length that is not here
		maxLabel = 63  // RFC 1035, 2.3.4
	)
	s = strings.TrimSuffix(s, ".")
	if len(s)+1 > maxName {
		return "", fmt.Errorf("dns name of %d characters: want up to %d", len(s), maxName-1)
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "" && s != "":
			return "", fmt.Errorf("dns name %q has an empty label", s)
		case len(label) > maxLabel:
			return "", fmt.Errorf("dns name %q has a label of %d characters: want up to %d", s, len(label), maxLabel)
		case strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
			return "", fmt.Errorf("dns name %q: want printable ASCII (xn-- for the rest), and no \\", s)
		}
	}
	return s + ".", nil
}

// Check sends the query to t. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive
// as well.
func (c DNS) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	q, err := c.query()
	if err != nil {
		return healthcheck.Result{}, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	start := time.Now()
	exchange := c.overUDP
	if c.TCP {
		exchange = c.overTCP
	}
	rcode, err := exchange(ctx, t, q)
	if err != nil {
		return healthcheck.Result{}, err
	}
	latency := time.Since(start)
	if wanted := c.wanted(); !slices.Contains(wanted, rcode) {
		return healthcheck.Result{}, unhealthyf("answered %s, wanted %s", rcodeName(rcode), rcodeNames(wanted))
	}
	return healthcheck.Result{Latency: latency, Detail: "answered " + rcodeName(rcode)}, nil
}

// wanted returns the wanted codes.
func (c DNS) wanted() []int {
	if len(c.Rcodes) == 0 {
		return []int{dns.RcodeSuccess}
	}
	return c.Rcodes
}

// A dnsQuery is a query that was sent or will be. DNS.query makes it.
type dnsQuery struct {
	id       uint16
	question dns.Question
	packed   []byte
}

// query returns the query, with a random id that nobody can guess.
func (c DNS) query() (dnsQuery, error) {
	name, err := dnsName(c.Name)
	if err != nil {
		return dnsQuery{}, err
	}
	typ := c.Type
	if typ == 0 {
		typ = dns.TypeA
	}
	packed, err := new(dns.Msg).SetQuestion(name, typ).SetEdns0(ednsBytes, false).Pack()
	if err != nil {
		return dnsQuery{}, err
	}
	m, err := unpackHead(packed) // so that the name has the same escapes as the name of an answer
	if err != nil {
		return dnsQuery{}, err
	}
	return dnsQuery{id: m.Id, question: m.Question[0], packed: packed}, nil
}

// overUDP sends the query over UDP and returns the answer's code.
func (c DNS) overUDP(ctx context.Context, t healthcheck.Target, q dnsQuery) (int, error) {
	start := time.Now()
	until, _ := ctx.Deadline()
	var rcode int
	var ignored error
	answered, err := exchangeUDP(ctx, t, atPort(t, c.Port), q.packed, until, func(b []byte) bool {
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
	if ignored != nil && !errors.Is(err, healthcheck.ErrInconclusive) {
		return 0, unhealthyf("%v, ignored: %v", err, ignored).because(err, ignored)
	}
	return 0, err
}

// overTCP sends the query over TCP and returns the answer's code.
func (c DNS) overTCP(ctx context.Context, t healthcheck.Target, q dnsQuery) (int, error) {
	k, err := openConn(ctx, t, c.Port, nil, "")
	if err != nil {
		return 0, err
	}
	defer k.finish(ctx)
	sent := binary.BigEndian.AppendUint16(nil, uint16(len(q.packed)))
	if _, err := k.Write(append(sent, q.packed...)); err != nil { // in one write: some servers read only once
		return 0, k.failure(ctx, err, "the end of sending")
	}
	var length [2]byte
	if _, err := io.ReadFull(k, length[:]); err != nil {
		return 0, k.failure(ctx, err, "the answer")
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if n, err := io.ReadFull(k, b); err != nil {
		// The text of another protocol, read as a length, announces bytes that never come.
		err := k.failure(ctx, err, "the end of the answer")
		if q.headerError(b[:n]) != nil && !errors.Is(err, healthcheck.ErrInconclusive) {
			got := append(length[:], b[:min(n, 4*longestQuote)]...)
			return 0, unhealthyf("not dns: answer begins with %s", quoted(got)).because(err)
		}
		return 0, err
	}
	return q.read(b)
}

// unpackHead returns the header and the questions of a message. The header is valid even if the questions are not,
// unless b is shorter than a header.
//
// It hides the records from the library, which can only unpack all of them. A name of two bytes may point to another
// name (RFC 1035, 4.1.4) and becomes a string of up to a thousand bytes; so an answer of 64 KiB could take more than 30
// MB. Besides, an answer of which only the code counts must not fail because of a record that the library cannot parse.
func unpackHead(b []byte) (m dns.Msg, err error) {
	head := slices.Clone(b[:min(len(b), dnsHeaderBytes+dnsQuestionBytes)])
	if len(head) < dnsHeaderBytes {
		return m, dns.ErrShortRead
	}
	clear(head[6:dnsHeaderBytes]) // the counts of records
	err = m.Unpack(head)
	return m, err
}

// extendedRcode returns the bits of an answer's code that are not in the header (RFC 6891, 6.1.3). b is an answer with
// one question. It fails if b does not have all records that its header announces.
//
// The library reads the names. The fixed part of a record is read by hand, because the library cannot skip the data.
func extendedRcode(b []byte) (bits int, err error) {
	_, off, err := dns.UnpackDomainName(b, dnsHeaderBytes)
	if err != nil {
		return 0, err
	}
	off += 4 // the type and class of the question
	records := 0
	for section := 6; section < dnsHeaderBytes; section += 2 { // answers, authorities, additional records
		records += int(binary.BigEndian.Uint16(b[section:]))
	}
	for range records {
		if _, off, err = dns.UnpackDomainName(b, off); err != nil {
			return 0, err
		}
		if len(b)-off < dnsRecordBytes {
			return 0, dns.ErrShortRead
		}
		fixed := b[off : off+dnsRecordBytes] // type, class, TTL and the length of the data
		if binary.BigEndian.Uint16(fixed) == dns.TypeOPT {
			bits = int(fixed[4]) << 4 // the first byte of the field that is the TTL in other records
		}
		if off += dnsRecordBytes + int(binary.BigEndian.Uint16(fixed[8:])); off > len(b) {
			return 0, dns.ErrShortRead
		}
	}
	return bits, nil
}

// headerError returns what is wrong with the header of an answer, whose first bytes are b.
func (q dnsQuery) headerError(b []byte) error {
	m, err := unpackHead(b)
	switch {
	case len(b) < dnsHeaderBytes:
		return unhealthyf("not dns: %s", quoted(b[:min(len(b), 4*longestQuote)])).because(err)
	case !m.Response:
		return unhealthyf("not an answer, but a query")
	case m.Id != q.id:
		return unhealthyf("answer to another query")
	}
	return nil
}

// read returns the code of the answer b, or an error if b does not answer q.
func (q dnsQuery) read(b []byte) (int, error) {
	if err := q.headerError(b); err != nil {
		return 0, err
	}
	m, err := unpackHead(b)
	if err != nil {
		return 0, unhealthyf("garbled answer").because(err)
	}
	if len(m.Question) != 1 || !sameQuestion(m.Question[0], q.question) {
		return 0, unhealthyf("answer to another question")
	}
	if m.Truncated { // the records may end anywhere
		return m.Rcode, nil
	}
	bits, err := extendedRcode(b)
	if err != nil {
		return 0, unhealthyf("garbled answer").because(err)
	}
	return bits | m.Rcode, nil
}

// sameQuestion reports whether a and b are the same question. The case of letters does not matter (RFC 1035, 2.3.3).
func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// rcodeName returns the name of a code as DNS tools write it.
func rcodeName(r int) string {
	// Only the codes that the key expect can name. The library calls 16 BADSIG, but in an answer without TSIG it is
	// BADVERS.
	if name, ok := dns.RcodeToString[r]; ok && r <= dns.RcodeRefused {
		return name
	}
	return fmt.Sprintf("RCODE%d", r) // as RFC 3597 writes unknown types
}

// rcodeNames returns the names of codes as a list to read.
func rcodeNames(rs []int) string {
	var names []string
	for _, r := range rs {
		names = append(names, rcodeName(r))
	}
	return strings.Join(names, " or ")
}
