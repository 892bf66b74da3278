package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// mixedZone has, n times over, what answers can be made of: addresses, mail and names with further records, chains of
// aliases, texts of all sizes, names below a wildcard and a delegation, and names that exist but have nothing.
func mixedZone(n int) string {
	var b strings.Builder
	b.WriteString("*.wild 300 A 192.0.2.9\n*.wild 300 TXT \"wild\"\nhost.wild 300 A 192.0.2.10\nnobody.nothing 300 A 192.0.2.11\n" +
		"sub 300 NS ns.sub\nns.sub 300 A 192.0.2.12\nold 300 DNAME wild\nbrief 1 TXT \"brief\"\nnever 0 A 192.0.2.13\n")
	for i := range n {
		fmt.Fprintf(&b, "h%[1]d 300 A 192.0.2.%[2]d\nh%[1]d 300 A 198.51.100.%[2]d\nh%[1]d 600 AAAA 2001:db8::%[1]x\n"+
			"m%[1]d 300 MX 10 h%[1]d\nm%[1]d 300 MX 20 h%[3]d\ns%[1]d 300 SRV 1 2 53 h%[1]d\n"+
			"c%[1]d 300 CNAME d%[1]d\nd%[1]d 200 CNAME e%[1]d\ne%[1]d 400 CNAME h%[1]d\nx%[1]d 300 CNAME no%[1]d\ny%[1]d 300 CNAME www.elsewhere.test.\n",
			i, i%250, (i+1)%n)
		// of 300 to 7,000 bytes: 512 and 1,232 are what clients take, and beyond 4,096 nothing is kept
		for k := range 1 + 33*i/n {
			fmt.Fprintf(&b, "t%d 300 TXT \"%d %s\"\n", i, k, strings.Repeat("text ", 40))
		}
	}
	return b.String()
}

// mixedQuestions makes n questions of which each is a query's only one, at a zone of mixedZone.
func mixedQuestions(zone, n int) (questions []*dns.Msg) {
	kinds := []struct {
		name  string // with %d for one of the zone's
		types []uint16
	}{
		{"h%d.", []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeA, dns.TypeMX, dns.TypeANY}},
		{"m%d.", []uint16{dns.TypeMX, dns.TypeA}},
		{"s%d.", []uint16{dns.TypeSRV}},
		{"t%d.", []uint16{dns.TypeTXT}},
		{"c%d.", []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeMX}},
		{"x%d.", []uint16{dns.TypeA}}, {"y%d.", []uint16{dns.TypeA}},
		{"no%d.", []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT}},
		{"w%d.wild.", []uint16{dns.TypeA, dns.TypeTXT, dns.TypeMX}},
		{"below%d.old.", []uint16{dns.TypeA}},
		{"z%d.sub.", []uint16{dns.TypeA}}, // a referral
		{"nothing.", []uint16{dns.TypeA}},
		{"brief.", []uint16{dns.TypeTXT}}, {"never.", []uint16{dns.TypeA}},
		{"", []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeA, dns.TypeANY, 65_280}},
	}
	for i := range n {
		kind := kinds[i%len(kinds)]
		name := kind.name
		if strings.Contains(name, "%d") {
			name = fmt.Sprintf(name, rand.IntN(zone))
		}
		m := new(dns.Msg).SetQuestion(name+harness.DNSZone, kind.types[rand.IntN(len(kind.types))])
		switch rand.IntN(40) {
		case 0:
			m.Question[0] = dns.Question{Name: []string{"version.bind.", "id.server.", "h1.lb.test."}[rand.IntN(3)],
				Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		case 1:
			m.Question[0].Name = "www.elsewhere.test." // refused
		}
		m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = rand.IntN(2) == 0, rand.IntN(8) == 0,
			rand.IntN(4) == 0
		if size := []uint16{0, 0, 100, 512, 1232, 1400, 4096, 65_535}[rand.IntN(8)]; size > 0 {
			m.SetEdns0(size, rand.IntN(3) == 0)
		}
		questions = append(questions, m)
	}
	return questions
}

// respelled returns a question with another id and with the letters of its name in random case.
func respelled(m *dns.Msg) *dns.Msg {
	m = m.Copy()
	m.Id = uint16(rand.Uint32())
	name := []byte(m.Question[0].Name)
	for i, c := range name {
		if c >= 'a' && c <= 'z' && rand.IntN(2) == 0 {
			name[i] -= 'a' - 'A'
		}
	}
	m.Question[0].Name = string(name)
	return m
}

// exchangeDNS asks a question at a connected socket.
func exchangeDNS(c net.Conn, m *dns.Msg) (*dns.Msg, error) {
	query, err := m.Pack()
	if err != nil {
		return nil, err
	}
	data, err := harness.AskUDP(c, query)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", m, err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(data); err != nil {
		return nil, fmt.Errorf("%v: %w", m, err)
	}
	if opt := m.IsEdns0(); opt != nil && len(data) > max(512, int(opt.UDPSize())) || opt == nil && len(data) > 512 {
		return nil, fmt.Errorf("%v: an answer of %d bytes is larger than the client takes", m, len(data))
	}
	return answer, nil
}

// recordsOf is a section's records in a fixed order, without TTL and with names without case, and without the OPT
// record. The TTLs are in the same order.
func recordsOf(section []dns.RR) (records []string, ttls []uint32) {
	section = slices.DeleteFunc(slices.Clone(section), func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeOPT })
	key := func(r dns.RR) string {
		r = dns.Copy(r)
		r.Header().Ttl = 0
		r.Header().Name = strings.ToLower(r.Header().Name)
		return r.String()
	}
	slices.SortFunc(section, func(a, b dns.RR) int { return strings.Compare(key(a), key(b)) })
	for _, r := range section {
		records, ttls = append(records, key(r)), append(ttls, r.Header().Ttl)
	}
	return records, ttls
}

// sameAnswer returns the difference between an answer through the cache and the backend's own answer to the same query.
func sameAnswer(cached, own *dns.Msg) error {
	if cached.MsgHdr != own.MsgHdr {
		return fmt.Errorf("the header is %+v, not %+v", cached.MsgHdr, own.MsgHdr)
	}
	if !slices.Equal(cached.Question, own.Question) {
		return fmt.Errorf("the question is %v, not %v", cached.Question, own.Question)
	}
	opt, ownOpt := cached.IsEdns0(), own.IsEdns0()
	if (opt == nil) != (ownOpt == nil) || opt != nil && (opt.Do() != ownOpt.Do() || opt.Version() != ownOpt.Version()) {
		return fmt.Errorf("the OPT record is %v, not %v", opt, ownOpt)
	}
	for i, section := range [][2][]dns.RR{{cached.Answer, own.Answer}, {cached.Ns, own.Ns}, {cached.Extra, own.Extra}} {
		records, ttls := recordsOf(section[0])
		want, most := recordsOf(section[1])
		if !slices.Equal(records, want) {
			return fmt.Errorf("section %d is\n%s\nnot\n%s", i, strings.Join(records, "\n"), strings.Join(want, "\n"))
		}
		for k := range ttls {
			if ttls[k] > most[k] {
				return fmt.Errorf("section %d: a TTL of %d where the backend has %d: %s",
					i, ttls[k], most[k], records[k])
			}
		}
	}
	return nil
}

// isKept reports whether a cache must keep a backend's answer for minutes: docs/dns.md.
func isKept(q, own *dns.Msg) bool {
	asked := q.Question[0]
	if asked.Qclass != dns.ClassINET || asked.Qtype == dns.TypeANY || own.Truncated || own.Len() > 4096 ||
		own.Rcode != dns.RcodeSuccess && own.Rcode != dns.RcodeNameError {
		return false
	}
	answers := func(r dns.RR) bool { return r.Header().Rrtype == asked.Qtype }
	isSOA := func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeSOA }
	isBrief := func(r dns.RR) bool { return r.Header().Ttl < 100 }
	return (slices.ContainsFunc(own.Answer, answers) || slices.ContainsFunc(own.Ns, isSOA)) &&
		!slices.ContainsFunc(own.Answer, isBrief)
}

// TestDNSMixed asks 10,000 questions of all kinds, each several times, through a cache and directly: the answers are
// the same. Then the name server falls silent, and kept answers are still the same.
func TestDNSMixed(t *testing.T) {
	t.Parallel()
	const zone, distinct, times, clients = 100, 1250, 8, 4
	server := harness.StartDNS(t)
	server.TTL = 300
	server.SetZone(t, mixedZone(zone))
	b := world{Backends: []string{server.Address}, Listener: []string{`cache = { max_entries = 10_000 }`}}.startUDP(t)
	questions := slices.Repeat(mixedQuestions(zone, distinct), times)
	rand.Shuffle(len(questions), func(i, k int) { questions[i], questions[k] = questions[k], questions[i] })
	type pair struct{ query, own *dns.Msg }
	kept := map[*dns.Msg]pair{} // by the question that was respelled
	var mu sync.Mutex           // guards kept
	var running sync.WaitGroup
	for part := range slices.Chunk(questions, len(questions)/clients) {
		through, direct := harness.DialUDP(t, b.Address(t, "main")), harness.DialUDP(t, server.Address)
		running.Go(func() {
			for _, question := range part {
				q := respelled(question)
				cached, err := exchangeDNS(through, q)
				var own *dns.Msg
				if err == nil {
					own, err = exchangeDNS(direct, q)
				}
				if err == nil {
					err = sameAnswer(cached, own)
				}
				if err != nil {
					t.Errorf("%v\n%v\nby way of the cache\n%v\nthe server\n%v", q, err, cached, own)
					continue
				}
				if isKept(q, own) {
					mu.Lock()
					kept[question] = pair{q, own}
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	if len(kept) < distinct/2 {
		t.Errorf("of %d different questions only %d have an answer that is to be kept", distinct, len(kept))
	}
	server.Freeze(t)
	through := harness.DialUDP(t, b.Address(t, "main"))
	for _, p := range kept {
		cached, err := exchangeDNS(through, p.query)
		if err == nil {
			err = sameAnswer(cached, p.own)
		}
		if err != nil {
			t.Fatalf("%v\nwithout the server: %v\nby way of the cache\n%v\nthe server\n%v", p.query, err, cached, p.own)
		}
	}
	became := metrics(t, b)
	for _, result := range []string{"hit", "miss", "coalesced", "passed"} {
		t.Logf("%s: %v", result, became[fmt.Sprintf(`limeload_dns_questions_total{listener="main",result=%q}`, result)])
	}
	t.Logf("%d questions, %d different ones; %d have an answer that is kept", len(questions), distinct, len(kept))
	if l := udpFigures(t, b); len(l.drops()) != 0 {
		t.Errorf("%+v", l)
	}
}
