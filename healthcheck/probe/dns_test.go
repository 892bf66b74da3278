package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// replyTo returns the answer to a packed query, changed by change. The servers of these tests use another library than
// the check, so that a mistake in one library is not hidden by the same mistake in the other.
func replyTo(t testing.TB, query []byte, change func(m *dnsmessage.Message)) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		t.Errorf("the query: %v", err)
		return nil
	}
	m.Response = true
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// fakeDNS returns a UDP server. It answers each query with one datagram from each of the functions.
func fakeDNS(t testing.TB, answers ...func(query []byte) []byte) healthcheck.Target {
	return serveUDP(t, "127.0.0.1:0", func(c *net.UDPConn, from netip.AddrPort, query []byte) {
		for _, a := range answers {
			_, _ = c.WriteToUDPAddrPort(a(query), from)
		}
	})
}

// fakeTCPDNS returns a TCP server that reads a query and calls handle.
func fakeTCPDNS(t *testing.T, handle func(c *net.TCPConn, query []byte)) healthcheck.Target {
	return targetAt(harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, query); err == nil {
			handle(c, query)
			_, _ = io.Copy(io.Discard, c)
		}
	}).Address())
}

func framed(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func TestDNSOfARealServer(t *testing.T) {
	server := harness.StartDNS(t)
	server.SetZone(t, "www A 192.0.2.1\nwww AAAA 2001:db8::1\nmail MX 10 www\n"+
		strings.Repeat("big TXT \""+strings.Repeat("x", 200)+"\"\n", 1)+bigZone())
	to := targetAt(server.Address)
	nothing := []int{dns.RcodeNameError}
	either := []int{dns.RcodeSuccess, dns.RcodeNameError}
	for _, tcp := range []bool{false, true} {
		for _, tt := range []struct {
			query  string
			rcodes []int
			detail string
			want   string
		}{
			{"www.lb.test", nil, "answered NOERROR", ""},
			{"www.LB.test. aaaa", nil, "answered NOERROR", ""},
			{"mail.lb.test MX", either, "answered NOERROR", ""},
			{"lb.test SOA", nil, "answered NOERROR", ""},
			{"www.lb.test TXT", nil, "answered NOERROR", ""},  // there is none, and that is no error
			{"many.lb.test TXT", nil, "answered NOERROR", ""}, // truncated, by UDP
			{"none.lb.test", nothing, "answered NXDOMAIN", ""},
			{"none.lb.test", either, "answered NXDOMAIN", ""},
			{"none.lb.test", nil, "", "answered NXDOMAIN, wanted NOERROR"},
			{"other.test", either, "", "answered REFUSED, wanted NOERROR or NXDOMAIN"},
		} {
			name, typ, err := ParseDNSQuery(tt.query)
			must(t, err)
			got, err := DNS{Name: name, Type: typ, Rcodes: tt.rcodes, TCP: tcp}.Check(deadlineIn(t, patience), to)
			if tt.want != "" {
				failsWith(t, err, tt.want)
			} else if err != nil || got.Detail != tt.detail || got.Latency <= 0 {
				t.Errorf("%s (tcp: %v): %+v, %v, want %s", tt.query, tcp, got, err, tt.detail)
			}
		}
	}
	_, err := DNS{Name: "lb.test", Port: to.Addr.Port()}.Check(deadlineIn(t, patience), closedUDP(t, "127.0.0.1"))
	must(t, err)
	server.Stop(t)
	_, err = DNS{Name: "lb.test"}.Check(deadlineIn(t, patience), to)
	failsWith(t, err, "port unreachable", syscall.ECONNREFUSED)
	_, err = DNS{Name: "lb.test", TCP: true}.Check(deadlineIn(t, patience), to)
	failsWith(t, err, "connect refused", syscall.ECONNREFUSED)
}

// bigZone returns a zone with a name whose answer does not fit into a UDP datagram.
func bigZone() string {
	var b strings.Builder
	for i := range 20 {
		b.WriteString("many TXT \"" + strings.Repeat(string(rune('a'+i)), 200) + "\"\n")
	}
	return b.String()
}

func TestDNSQuery(t *testing.T) {
	queries := make(chan []byte, 1)
	to := fakeDNS(t, func(query []byte) []byte {
		select {
		case queries <- append([]byte(nil), query...):
		// sent again on a slow machine; the server must not wait for someone to listen, or its end waits for it
		default:
		}
		return replyTo(t, query, nil)
	})
	ids := make(map[uint16]bool)
	for range 8 {
		_, err := DNS{}.Check(deadlineIn(t, patience), to)
		must(t, err)
		var m dnsmessage.Message
		must(t, m.Unpack(harness.Receive(t, "the query", queries)))
		ids[m.ID] = true
		want := []dnsmessage.Question{{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeA,
			Class: dnsmessage.ClassINET}}
		if m.Response || !m.RecursionDesired || !reflect.DeepEqual(m.Questions, want) || len(m.Additionals) != 1 {
			t.Fatalf("the query is %v", m)
		}
		if h := m.Additionals[0].Header; h.Type != dnsmessage.TypeOPT || h.Class != ednsBytes || h.TTL != 0 {
			t.Errorf("EDNS is %v", h)
		}
	}
	if len(ids) < 6 {
		t.Errorf("8 queries had the ids %v", ids)
	}
}

func TestDNSHostileServers(t *testing.T) {
	reply := func(change func(m *dnsmessage.Message)) func([]byte) []byte {
		return func(query []byte) []byte { return replyTo(t, query, change) }
	}
	good := reply(nil)
	name := dnsmessage.MustNewName("other.test.")
	bad := map[string]struct {
		answer func([]byte) []byte
		words  string
	}{
		"id":   {reply(func(m *dnsmessage.Message) { m.ID++ }), "answer to another query"},
		"name": {reply(func(m *dnsmessage.Message) { m.Questions[0].Name = name }), "answer to another question"},
		"type": {reply(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeMX }),
			"answer to another question"},
		"class": {reply(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }),
			"answer to another question"},
		"none": {reply(func(m *dnsmessage.Message) { m.Questions = nil }), "answer to another question"},
		"two": {reply(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }),
			"answer to another question"},
		"mirror":   {func(query []byte) []byte { return query }, "not an answer, but a query"},
		"nothing":  {func([]byte) []byte { return nil }, "not dns: nothing"},
		"text":     {func([]byte) []byte { return []byte("-ERR\r\n") }, `not dns: "-ERR\\r\\n"`},
		"half":     {func(query []byte) []byte { return good(query)[:20] }, "garbled answer"},
		"cut":      {func(query []byte) []byte { b := good(query); return b[:len(b)-1] }, "garbled answer"},
		"promises": {func(query []byte) []byte { b := good(query); b[7] = 9; return b }, "garbled answer"},
		"loop": {func(query []byte) []byte { b := good(query); b[12], b[13] = 0xc0, 12; return b },
			"garbled answer"},
		"owner": {func(query []byte) []byte {
			b := good(query)
			return append(b[:len(b)-11], 0xc0, byte(len(b)-11))
		}, "garbled answer"},
		"ahead": {func(query []byte) []byte { b := good(query); b[len(b)-1] = 1; return b }, "garbled answer"},
	}
	check := DNS{Name: "www.lb.test"}
	for name, tt := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			_, err := check.Check(deadlineIn(t, hurry), fakeDNS(t, tt.answer))
			failsWith(t, err, "timed out waiting for the answer after [0-9]+ms, ignored: "+tt.words,
				context.DeadlineExceeded)
			_, err = check.Check(deadlineIn(t, patience), fakeDNS(t, tt.answer, tt.answer, good, tt.answer))
			if err != nil {
				t.Errorf("a bad answer before a good one: %v", err)
			}
			over := check
			over.TCP = true
			_, err = over.Check(deadlineIn(t, patience), fakeTCPDNS(t, func(c *net.TCPConn, query []byte) {
				_, _ = c.Write(framed(tt.answer(query)))
			}))
			failsWith(t, err, tt.words)
		})
	}
	t.Run("port", func(t *testing.T) {
		to := serveUDP(t, "127.0.0.1:0", func(_ *net.UDPConn, from netip.AddrPort, query []byte) {
			other, err := net.Dial("udp", from.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer other.Close()
			_, _ = other.Write(good(query))
		})
		_, err := check.Check(deadlineIn(t, hurry), to)
		failsWith(t, err, "timed out waiting for the answer after [0-9]+ms")
	})
	for want, change := range map[string]func(m *dnsmessage.Message){
		"answered SERVFAIL, wanted NOERROR": func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure },
		"answered FORMERR, wanted NOERROR": func(m *dnsmessage.Message) {
			m.RCode, m.Additionals = dnsmessage.RCodeFormatError, nil
		},
		"answered NOTIMP, wanted NOERROR": func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNotImplemented },
		"answered RCODE9, wanted NOERROR": func(m *dnsmessage.Message) { m.RCode = 9 },
		"answered RCODE16, wanted NOERROR": func(m *dnsmessage.Message) { // BADVERS, which is 0 in the header
			must(t, m.Additionals[0].Header.SetEDNS0(ednsBytes, 16, false))
		},
	} {
		_, err := check.Check(deadlineIn(t, patience), fakeDNS(t, reply(change)))
		failsWith(t, err, want)
	}
	_, err := check.Check(deadlineIn(t, patience), fakeDNS(t, func(query []byte) []byte { // truncated amid a record
		b := replyTo(t, query, func(m *dnsmessage.Message) { m.Truncated = true })
		b[7] = 1
		return b[:len(b)-5]
	}))
	must(t, err)
}

// TestDNSRecordsCostNothing has an answer with a record that the library would turn into 30,000 long names, and with a
// record that the library cannot parse. Only the code counts.
func TestDNSRecordsCostNothing(t *testing.T) {
	q, err := DNS{Name: "www.lb.test"}.query()
	must(t, err)
	// In the library's strings each byte 0x80 becomes four.
	name := append(bytes.Repeat(append([]byte{49}, bytes.Repeat([]byte{0x80}, 49)...), 5), 0)
	where := byte(len(q.packed)) // of the first record's data: before it is as much as the query has
	answer := replyTo(t, q.packed, func(m *dnsmessage.Message) {
		for _, r := range []dnsmessage.UnknownResource{
			{Type: dnsmessage.Type(dns.TypeNULL), Data: name},
			{Type: dnsmessage.Type(dns.TypeHIP),
				Data: append(make([]byte, 4), bytes.Repeat([]byte{0xc0, where}, 30000)...)},
			{Type: dnsmessage.TypeA, Data: []byte("not an address")},
		} {
			h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Class: dnsmessage.ClassINET}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &r})
		}
	})
	if !bytes.HasPrefix(answer[where:], name) {
		t.Fatalf("at %d of the answer there is no name: %x", where, answer[:100])
	}
	if err := new(dns.Msg).Unpack(answer); err == nil {
		t.Fatal("the library understands all records of the answer")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rcode, err := q.read(answer)
	runtime.ReadMemStats(&after)
	if err != nil || rcode != dns.RcodeSuccess {
		t.Errorf("the answer is of code %d, %v", rcode, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("an answer of %d bytes took %d bytes to read", len(answer), got)
	}
}

// TestDNSNamesWithSigns asks for names that the library writes with escapes.
func TestDNSNamesWithSigns(t *testing.T) {
	for _, name := range []string{`a@b.test`, `a"b.test`, "(a);'b$.test", "."} {
		q, err := DNS{Name: name}.query()
		must(t, err)
		if rcode, err := q.read(replyTo(t, q.packed, nil)); err != nil || rcode != dns.RcodeSuccess {
			t.Errorf("the answer about %s is of code %d, %v", name, rcode, err)
		}
	}
}

func TestDNSOverTCPHostileServers(t *testing.T) {
	check := DNS{Name: "www.lb.test", TCP: true}
	good := func(query []byte) []byte { return framed(replyTo(t, query, nil)) }
	_, err := check.Check(deadlineIn(t, patience), fakeTCPDNS(t, func(c *net.TCPConn, query []byte) {
		dribble(t.Context(), c, string(good(query)))
	}))
	must(t, err)
	for want, handle := range map[string]func(c *net.TCPConn, query []byte){
		"timed out waiting for the end of the answer after .*ms": func(c *net.TCPConn, query []byte) {
			b := good(query)
			b[0] = 0xff // a length that is too long
			_, _ = c.Write(b)
		},
		"timed out waiting for the answer after .*ms": func(c *net.TCPConn, _ []byte) { _, _ = c.Write([]byte{0}) },
		"closed before the end of the answer": func(c *net.TCPConn, query []byte) {
			b := good(query)
			_, _ = c.Write(b[:len(b)-1])
			_ = c.CloseWrite()
		},
		"closed before the answer": func(c *net.TCPConn, _ []byte) { _ = c.CloseWrite() },
		`not dns: answer begins with "HTTP/1.1 400 Bad Request\\r\\n"`: func(c *net.TCPConn, _ []byte) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n")
			_ = c.CloseWrite()
		},
		"not dns: nothing": func(c *net.TCPConn, _ []byte) { _, _ = c.Write([]byte{0, 0}) },
	} {
		failsAtLast(t, want, func(ctx context.Context) error {
			_, err := check.Check(ctx, fakeTCPDNS(t, handle))
			return err
		})
	}
	survives(t, "\x00\x40\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00",
		func(ctx context.Context, to healthcheck.Target) error {
			_, err := check.Check(ctx, to)
			return err
		})
}

// TestDNSLostOnce loses the first query.
func TestDNSLostOnce(t *testing.T) {
	seen := 0
	to := serveUDP(t, "127.0.0.1:0", func(c *net.UDPConn, from netip.AddrPort, query []byte) {
		if seen++; seen == 2 {
			_, _ = c.WriteToUDPAddrPort(replyTo(t, query, nil), from)
		}
	})
	_, err := DNS{}.Check(deadlineIn(t, 3*time.Second), to)
	must(t, err)
}

func TestDNSCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	to := fakeDNS(t, func(query []byte) []byte { cancel(); return query })
	_, err := DNS{}.Check(ctx, to)
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
}

func TestDNSMistakes(t *testing.T) {
	for _, name := range []string{"a..b", strings.Repeat("x", 64), strings.Repeat("x.", 200), "ä.test", `a\.b`, ".."} {
		_, err := DNS{Name: name}.Check(deadlineIn(t, patience), target("a")) // that nobody asks
		failsWith(t, err, "cannot check: dns name .*", healthcheck.ErrInconclusive)
	}
}

func TestParseDNSQuery(t *testing.T) {
	for s, want := range map[string]struct {
		name string
		typ  uint16
	}{
		"example.com":          {"example.com.", dns.TypeA},
		"example.com A":        {"example.com.", dns.TypeA},
		" example.com.  aaaa":  {"example.com.", dns.TypeAAAA},
		". NS":                 {".", dns.TypeNS},
		"_sip._udp.a.test SRV": {"_sip._udp.a.test.", dns.TypeSRV},
	} {
		name, typ, err := ParseDNSQuery(s)
		if err != nil || name != want.name || typ != want.typ {
			t.Errorf("ParseDNSQuery(%q) = %q, %v, %v, want %v", s, name, typ, err, want)
		}
	}
	for s, want := range map[string]string{
		"":                              "empty dns query: want .*",
		"a A IN":                        `dns query "a A IN" has 3 words: want .*`,
		"a ANY":                         `unknown dns type "ANY": want one of A, AAAA, NS, SOA, MX, TXT, SRV, CNAME, PTR`,
		"a..b A":                        `dns name "a..b" has an empty label`,
		".a":                            `dns name ".a" has an empty label`,
		"a\x7f.b":                       `dns name "a\\x7f.b": want printable ASCII \(xn-- for the rest\), and no \\`,
		strings.Repeat("x", 64) + ".a":  `dns name "x{64}.a" has a label of 64 characters: want up to 63`,
		strings.Repeat("x.", 127) + "x": `dns name of 255 characters: want up to 253`,
	} {
		_, _, err := ParseDNSQuery(s)
		failsWith(t, err, want)
	}
}

// FuzzDNSAnswer checks that an answer is either an answer to the query, or refused with a checkError.
func FuzzDNSAnswer(f *testing.F) {
	q, err := DNS{Name: "www.lb.test"}.query()
	if err != nil {
		f.Fatal(err)
	}
	q.id = 0x1234
	copy(q.packed, "\x12\x34")
	good := replyTo(f, q.packed, nil)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(q.packed)
	f.Add([]byte("HTTP/1.1 400"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rcode, err := q.read(b)
		if err != nil {
			var said *checkError
			if !errors.As(err, &said) {
				t.Errorf("%q is refused with %v", b, err)
			}
			failsWith(t, err, ".*[a-z]{3}.*")
			return
		}
		if len(b) < 12 || string(b[:2]) != "\x12\x34" || b[2]&0x80 == 0 || rcode > 0xfff {
			t.Errorf("%q is an answer of code %d", b, rcode)
		}
	})
}

func FuzzParseDNSQuery(f *testing.F) {
	f.Add("example.com A")
	f.Add(". NS")
	f.Add("a..b")
	f.Fuzz(func(t *testing.T, s string) {
		name, typ, err := ParseDNSQuery(s)
		if err != nil {
			return
		}
		q, err := DNS{Name: name, Type: typ}.query()
		if err != nil {
			t.Fatalf("%q is %q %v, of which there is no query: %v", s, name, typ, err)
		}
		if _, err := q.read(replyTo(t, q.packed, nil)); err != nil {
			t.Errorf("%q is %q %v, to which an answer is refused: %v", s, name, typ, err)
		}
	})
}
