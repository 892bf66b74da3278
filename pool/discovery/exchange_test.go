package discovery

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

var db = DNS{Name: "db.test.", Port: 5432}

// TestForgedDatagrams has a server that sends something else before the answer, or nothing but that.
func TestForgedDatagrams(t *testing.T) {
	forged := func(q *dns.Msg) *dns.Msg { return reply(q, "db.test. 5 A 10.66.66.66") }
	for _, tt := range []struct {
		name   string
		sends  func(q *dns.Msg) []byte
		detail string // of the error when nothing else comes
	}{
		{"another id", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Id++ }))[0]
		}, "message with another id"},
		{"another name", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Question[0].Name = "db.test.example." }))[0]
		}, "answer to another question"},
		{"another type", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT }))[0]
		}, "answer to another question"},
		{"another class", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }))[0]
		}, "answer to another question"},
		{"two questions", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }))[0]
		}, "answer to another question"},
		{"no question", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Question = nil }))[0]
		}, "answer to another question"},
		{"the question back", func(q *dns.Msg) []byte { return packed(q)[0] }, "message that is not an answer"},
		{"another opcode", func(q *dns.Msg) []byte {
			return packed(with(forged(q), func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }))[0]
		}, "message that is not an answer"},
		{"garbage", func(*dns.Msg) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, "not a DNS message: "},
		{"a few bytes", func(*dns.Msg) []byte { return []byte{1, 2, 3} }, "dns: short read"},
		{"nothing", func(*dns.Msg) []byte { return nil }, "dns: short read"},
		{"half of an answer", func(q *dns.Msg) []byte {
			whole := packed(forged(q))[0]
			return whole[:len(whole)-3]
		}, "not a DNS message: "},
		{"fewer records than announced", func(q *dns.Msg) []byte {
			m := packed(forged(q))[0]
			m[7] = 9
			return m
		}, "answer with 1 of its 9 records"},
		{"a record without data", func(q *dns.Msg) []byte {
			m := packed(forged(q))[0]
			m = m[:len(m)-4]
			m[len(m)-1] = 0
			return m
		}, "answer with a record without data"},
		{"a loop of compression", func(q *dns.Msg) []byte {
			m := packed(forged(q))[0]
			m[12], m[13] = 0xc0, 12
			return m
		}, "not a DNS message: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first := serve(t, onlyA(func(q *dns.Msg, network string) [][]byte {
				return append([][]byte{tt.sends(q)}, addresses10(q, network)...)
			}))
			f, err := db.find(t.Context(), first.resolvers())
			wantFound(t, f, err, 5*time.Second, "10.0.0.1:5432")

			alone := serve(t, onlyA(func(q *dns.Msg, _ string) [][]byte { return [][]byte{tt.sends(q), tt.sends(q)} }))
			harness.Eventually(t, "the error says what came instead", func() error {
				f, err = db.find(t.Context(), hurried(alone.resolvers()))
				if !errors.Is(err, ErrNoAnswer) {
					return nil
				}
				return err
			})
			start := "look up A of db.test. at " + alone.address + ": no usable answer: " + tt.detail
			if !errors.Is(err, ErrBadAnswer) || !strings.HasPrefix(err.Error(), start) {
				t.Errorf("found %v, error %v; want %q", f, err, start)
			}
		})
	}
}

func TestServersThatDoNotAnswer(t *testing.T) {
	silent := func(*dns.Msg, string) [][]byte { return nil }
	t.Run("silent", func(t *testing.T) {
		s := serve(t, silent)
		f, err := db.find(t.Context(), hurried(s.resolvers()))
		wantFailure(t, f, err, ErrNoAnswer, "look up A of db.test. at "+s.address+": no answer: timed out")
	})
	t.Run("late", func(t *testing.T) {
		givenUp, late := make(chan struct{}), true
		s := serve(t, onlyA(func(q *dns.Msg, network string) [][]byte {
			if late { // one goroutine serves UDP
				late = false
				<-givenUp
				return packed(reply(q, "db.test. 5 A 10.66.66.66"))
			}
			return addresses10(q, network)
		}))
		f, err := db.find(t.Context(), hurried(s.resolvers()))
		close(givenUp)
		if !errors.Is(err, ErrNoAnswer) {
			t.Errorf("found %v, error %v; want ErrNoAnswer", f, err)
		}
		f, err = db.find(t.Context(), s.resolvers())
		wantFound(t, f, err, 5*time.Second, "10.0.0.1:5432")
	})
	t.Run("refused", func(t *testing.T) {
		r := (&server{address: harness.FreeAddress(t)}).resolvers()
		f, err := db.find(t.Context(), r)
		wantFailure(t, f, err, ErrNoAnswer, "look up A of db.test. at "+r.servers[0]+": no answer: connection refused")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v does not wrap ECONNREFUSED", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var n int // one goroutine serves UDP
		s := serve(t, func(*dns.Msg, string) [][]byte {
			if n++; n == 2 {
				cancel()
			}
			return nil
		})
		r := s.resolvers()
		r.timeout, r.attempts = time.Hour, 3
		f, err := db.find(ctx, r) // would hang here
		wantFailure(t, f, err, ErrNoAnswer, "look up A of db.test. at "+s.address+": no answer: context canceled")
		if n := len(s.questions()); n != 2 || !errors.Is(err, context.Canceled) {
			t.Errorf("%d questions, error %v; want 2 and context.Canceled", n, err)
		}
	})
	t.Run("until the deadline", func(t *testing.T) {
		s := serve(t, silent)
		r := s.resolvers()
		r.timeout = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		f, err := db.find(ctx, r)
		wantFailure(t, f, err, ErrNoAnswer, "look up A of db.test. at "+s.address+": no answer: timed out")
	})
}

func TestAnswersThatAreFailures(t *testing.T) {
	code := func(code int) func(q *dns.Msg, _ string) [][]byte {
		return func(q *dns.Msg, _ string) [][]byte {
			return packed(with(reply(q), func(m *dns.Msg) { m.Rcode = code }))
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(q *dns.Msg, network string) [][]byte
		kind   error
		text   string // %s is the server
	}{
		{"SERVFAIL", code(dns.RcodeServerFailure), ErrServerFailed,
			"look up A of db.test. at %s: the server failed: SERVFAIL"},
		{"NOTIMP", code(dns.RcodeNotImplemented), ErrServerFailed,
			"look up A of db.test. at %s: the server failed: NOTIMP"},
		{"REFUSED", code(dns.RcodeRefused), ErrRefused, "look up A of db.test. at %s: the server refused: REFUSED"},
		{"a header alone", func(q *dns.Msg, _ string) [][]byte {
			m := packed(with(reply(q), func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }))[0][:12]
			return [][]byte{m}
		}, ErrRefused, "look up A of db.test. at %s: the server refused: REFUSED"},
		{"NXDOMAIN", code(dns.RcodeNameError), ErrNoSuchName, "look up A/AAAA of db.test.: no such name"},
		{"NODATA", code(dns.RcodeSuccess), ErrNoRecords, "look up A/AAAA of db.test.: the name has no records"},
		{"a referral", func(q *dns.Msg, _ string) [][]byte {
			return packed(with(reply(q), func(m *dns.Msg) { m.RecursionAvailable = false }))
		}, ErrServerFailed, "look up A of db.test. at %s: the server failed: it knows nothing of the name and asks nobody"},
		{"one family fails", func(q *dns.Msg, network string) [][]byte {
			if q.Question[0].Qtype == dns.TypeA {
				return addresses10(q, network)
			}
			return code(dns.RcodeServerFailure)(q, network)
		}, ErrServerFailed, "look up AAAA of db.test. at %s: the server failed: SERVFAIL"},
		{"NXDOMAIN for one family, NODATA for the other", func(q *dns.Msg, network string) [][]byte {
			if q.Question[0].Qtype == dns.TypeA {
				return code(dns.RcodeNameError)(q, network)
			}
			return code(dns.RcodeSuccess)(q, network)
		}, ErrNoRecords, "look up A/AAAA of db.test.: the name has no records"},
		{"an alias of nothing", onlyA(func(q *dns.Msg, _ string) [][]byte {
			return packed(reply(q, "db.test. 5 CNAME gone.test."))
		}), ErrNoRecords, "look up A/AAAA of db.test.: the name has no records: it is an alias of gone.test."},
		{"aliases in a circle", onlyA(func(q *dns.Msg, _ string) [][]byte {
			return packed(reply(q, "db.test. 5 CNAME b.test.", "b.test. 5 CNAME db.test."))
		}), ErrBadAnswer, "look up A of db.test.: no usable answer: aliases in a circle"},
		{"addresses that are none", onlyA(func(q *dns.Msg, _ string) [][]byte {
			return packed(reply(q, "db.test. 5 A 10.0.0.1", "db.test. 5 A 224.0.0.1", "db.test. 5 A 0.0.0.0"))
		}), ErrBadBackend, "look up A/AAAA of db.test.: unusable backend: 0.0.0.0:5432, 224.0.0.1:5432"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, tt.answer)
			f, err := db.find(t.Context(), s.resolvers())
			wantFailure(t, f, err, tt.kind, strings.ReplaceAll(tt.text, "%s", s.address))
		})
	}
}

func TestTheNextServer(t *testing.T) {
	good := serve(t, onlyA(addresses10))
	failing := serve(t, func(q *dns.Msg, _ string) [][]byte {
		return packed(with(reply(q), func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }))
	})
	silent := serve(t, func(*dns.Msg, string) [][]byte { return nil })
	gone := &server{address: harness.FreeAddress(t)}

	for name, first := range map[string]*server{"failing": failing, "silent": silent, "gone": gone} {
		var f Found
		harness.Eventually(t, name+" first", func() (err error) {
			f, err = db.find(t.Context(), hurried(first.resolvers(good)))
			return err
		})
		wantFound(t, f, nil, 5*time.Second, "10.0.0.1:5432")
	}
	good.questions()
	f, err := db.find(t.Context(), good.resolvers(failing))
	wantFound(t, f, err, 5*time.Second, "10.0.0.1:5432")
	if n := len(good.questions()); n != 2 {
		t.Errorf("the first server was asked %d questions, want 2", n)
	}

	other := serve(t, failing.serve)
	failing.questions()
	r := failing.resolvers(other)
	r.attempts = 2
	f, err = db.find(t.Context(), r)
	wantFailure(t, f, err, ErrServerFailed, "look up A of db.test. at "+other.address+": the server failed: SERVFAIL")
	for _, s := range []*server{failing, other} {
		if n := len(s.questions()); n != 4 {
			t.Errorf("in two rounds a server was asked %d questions, want 4", n)
		}
	}
}

func TestTruncated(t *testing.T) {
	truncated := func(q *dns.Msg) *dns.Msg {
		return with(reply(q, "db.test. 5 A 10.66.66.66"), func(m *dns.Msg) { m.Truncated = true })
	}
	t.Run("asks again by TCP", func(t *testing.T) {
		s := serve(t, onlyA(func(q *dns.Msg, network string) [][]byte {
			if network == "tcp" {
				return addresses10(q, network)
			}
			return packed(truncated(q))
		}))
		f, err := db.find(t.Context(), s.resolvers())
		wantFound(t, f, err, 5*time.Second, "10.0.0.1:5432")
		if asked := s.questions(); !slices.Contains(asked, "tcp A db.test.") || len(asked) != 3 {
			t.Errorf("questions %q, want A by UDP and TCP, AAAA by UDP", asked)
		}
	})
	t.Run("cut within a record", func(t *testing.T) {
		s := serve(t, onlyA(func(q *dns.Msg, network string) [][]byte {
			if network == "tcp" {
				return addresses10(q, network)
			}
			m := packed(truncated(q))[0]
			return [][]byte{m[:len(m)-2]}
		}))
		f, err := db.find(t.Context(), s.resolvers())
		wantFound(t, f, err, 5*time.Second, "10.0.0.1:5432")
	})
	t.Run("by TCP too", func(t *testing.T) {
		s := serve(t, onlyA(func(q *dns.Msg, _ string) [][]byte { return packed(truncated(q)) }))
		f, err := db.find(t.Context(), s.resolvers())
		wantFailure(t, f, err, ErrBadAnswer,
			"look up A of db.test. at "+s.address+": no usable answer: truncated, although by TCP")
	})
	t.Run("something else by TCP", func(t *testing.T) {
		s := serve(t, onlyA(func(q *dns.Msg, network string) [][]byte {
			if network == "tcp" {
				return packed(with(reply(q), func(m *dns.Msg) { m.Id++ }))
			}
			return packed(truncated(q))
		}))
		f, err := db.find(t.Context(), s.resolvers())
		wantFailure(t, f, err, ErrBadAnswer,
			"look up A of db.test. at "+s.address+": no usable answer: message with another id")
	})
	t.Run("no TCP", func(t *testing.T) {
		address := harness.FreeAddress(t)
		udp, err := net.ListenPacket("udp", address)
		must(t, err)
		s := &server{address: address, serve: onlyA(func(q *dns.Msg, _ string) [][]byte {
			return packed(truncated(q))
		})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.serveUDP(udp)
		}()
		f, err := db.find(t.Context(), s.resolvers())
		wantFailure(t, f, err, ErrNoAnswer, "look up A of db.test. at "+s.address+": no answer: connection refused")
		udp.Close()
		<-done
	})
}

// FuzzAccept has servers that send anything. What is taken as an answer must be one.
func FuzzAccept(f *testing.F) {
	query := question("db.test.", dns.TypeA)
	query.Id = 4711
	for _, m := range []*dns.Msg{
		reply(query, "db.test. 5 A 10.0.0.1", "db.test. 5 A 10.0.0.2"),
		reply(query, "db.test. 5 CNAME b.test.", "b.test. 5 A 10.0.0.1"),
		reply(query, "db.test. 5 CNAME db.test."),
		reply(query),
		with(reply(query), func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }),
		with(reply(query), func(m *dns.Msg) { m.Truncated = true }),
		with(reply(query, "db.test. 5 SRV 1 2 3 a.test."), func(m *dns.Msg) {
			m.Extra = reply(query, "a.test. 5 A 10.0.0.1").Answer
		}),
	} {
		f.Add(packed(m)[0])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := accept(raw, query)
		if err != nil || m.Truncated || failure(m) != nil {
			return
		}
		if m.Id != query.Id || !m.Response || len(m.Question) != 1 {
			t.Fatalf("taken as an answer: %v", m)
		}
		found, failed := recordsOf(m, "db.test.", dns.TypeA)
		if failed != nil {
			return
		}
		if len(found.found) == 0 || found.ttl > maxTTL {
			t.Fatalf("records %+v", found)
		}
		for _, rr := range found.found {
			if ip := addressOf(rr); !ip.Is4() {
				t.Fatalf("address %v of %v", ip, rr)
			}
		}
		_ = servicesOf(found.extra)
	})
}
