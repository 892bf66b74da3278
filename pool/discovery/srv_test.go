package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

func TestSRV(t *testing.T) {
	d := harness.StartDNS(t)
	var many strings.Builder
	var manyBackends []string
	for i := range 150 { // far more than fits a datagram, with too little room for the addresses of all by TCP
		fmt.Fprintf(&many, "_many._tcp 60 SRV 0 1 %d m%d\nm%d 60 A 10.1.0.%d\n", 1000+i, i, i, i+1)
		manyBackends = append(manyBackends, fmt.Sprintf("10.1.0.%d:%d", i+1, 1000+i))
	}
	d.SetZone(t, `
a 50 A 10.0.0.1
a 50 AAAA 2001:db8::1
b 40 A 10.0.0.2
c 30 A 10.0.0.3
alias 20 CNAME c
_pg._tcp 60 SRV 10 5 5432 a
_pg._tcp 60 SRV 10 0 5433 b
_pg._tcp 60 SRV 20 0 5432 c
_zero._tcp 60 SRV 0 0 1 a
_zero._tcp 60 SRV 0 0 2 b
_heavy._tcp 60 SRV 1 65535 1 a
_heavy._tcp 60 SRV 1 32768 2 b
_heavy._tcp 60 SRV 1 1 3 b
_heavy._tcp 60 SRV 2 300 3 c
_twice._tcp 60 SRV 2 9 1 c
_twice._tcp 60 SRV 1 3 1 c
_twice._tcp 60 SRV 1 4 1 alias
_alias._tcp 60 SRV 0 1 1 alias
_aliased._tcp 10 CNAME _pg._tcp
_off._tcp 60 SRV 0 0 0 .
_half._tcp 60 SRV 0 0 0 .
_half._tcp 60 SRV 0 0 1 b
_lost._tcp 60 SRV 0 1 1 a
_lost._tcp 60 SRV 0 1 1 gone
_away._tcp 60 SRV 0 1 1 db.example.com.
_port._tcp 60 SRV 0 1 0 b
`+many.String())
	for _, tt := range []struct {
		name string
		ttl  time.Duration
		want []string
	}{
		{"_pg._tcp", 30 * time.Second, []string{
			"10.0.0.1:5432 w5 t10", "10.0.0.2:5433 w1 t10", "[2001:db8::1]:5432 w5 t10", "10.0.0.3:5432 w1 t20",
		}},
		{"_aliased._tcp", 10 * time.Second, []string{
			"10.0.0.1:5432 w5 t10", "10.0.0.2:5433 w1 t10", "[2001:db8::1]:5432 w5 t10", "10.0.0.3:5432 w1 t20",
		}},
		{"_zero._tcp", 40 * time.Second, []string{"10.0.0.1:1", "10.0.0.2:2", "[2001:db8::1]:1"}},
		{"_heavy._tcp", 30 * time.Second, []string{
			"10.0.0.1:1 w256 t1", "10.0.0.2:2 w128 t1", "10.0.0.2:3 w1 t1", "[2001:db8::1]:1 w256 t1",
			"10.0.0.3:3 w256 t2",
		}},
		{"_twice._tcp", 20 * time.Second, []string{"10.0.0.3:1 w4 t1"}},
		{"_alias._tcp", 20 * time.Second, []string{"10.0.0.3:1"}},
		{"_half._tcp", 40 * time.Second, []string{"10.0.0.2:1"}},
		{"_many._tcp", time.Minute, manyBackends},
	} {
		f, err := SRV{Name: tt.name + ".lb.test", Resolver: d.Address}.Find(t.Context())
		wantFound(t, f, err, tt.ttl, tt.want...)
	}
	for _, tt := range []struct {
		name string
		kind error
		text string
	}{
		{"_gone._tcp", ErrNoSuchName, "look up SRV of _gone._tcp.lb.test.: no such name"},
		{"a", ErrNoRecords, "look up SRV of a.lb.test.: the name has no records"},
		{"_off._tcp", ErrNoService, "look up SRV of _off._tcp.lb.test.: the service is not there"},
		{"_lost._tcp", ErrNoSuchName,
			"look up SRV of _lost._tcp.lb.test.: target: look up A/AAAA of gone.lb.test.: no such name"},
		{"_away._tcp", ErrRefused, "look up SRV of _away._tcp.lb.test.: target: look up A of db.example.com. at " +
			d.Address + ": the server refused: REFUSED"},
		{"_port._tcp", ErrBadBackend, "look up SRV of _port._tcp.lb.test.: unusable backend: 10.0.0.2:0"},
	} {
		f, err := SRV{Name: tt.name + ".lb.test", Resolver: d.Address}.Find(t.Context())
		wantFailure(t, f, err, tt.kind, tt.text)
	}
}

// TestAddressesThatCameWithTheAnswer are not asked for again.
func TestAddressesThatCameWithTheAnswer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		extra []string
		asked []string
		ttl   time.Duration
		want  []string
	}{
		{"none", nil, []string{"A", "AAAA"}, 50 * time.Second, []string{"10.0.0.9:1"}},
		{"both", []string{"a.test. 7 A 10.0.0.1", "A.TEST. 8 AAAA 2001:db8::1"}, nil, 7 * time.Second,
			[]string{"10.0.0.1:1", "[2001:db8::1]:1"}},
		{"one family", []string{"a.test. 7 A 10.0.0.1"}, []string{"AAAA"}, 7 * time.Second, []string{"10.0.0.1:1"}},
		{"of another", []string{"b.test. 7 A 10.0.0.1", "b.test. 7 AAAA 2001:db8::1"}, []string{"A", "AAAA"},
			50 * time.Second, []string{"10.0.0.9:1"}},
		{"of another class", []string{"a.test. 7 CH A 10.0.0.1"}, []string{"A", "AAAA"}, 50 * time.Second,
			[]string{"10.0.0.9:1"}},
	} {
		s := serve(t, func(q *dns.Msg, _ string) [][]byte {
			switch q.Question[0].Qtype {
			case dns.TypeSRV:
				return packed(with(reply(q, "db.test. 60 SRV 0 1 1 a.test.", "db.test. 60 SRV 0 1 1 A.Test."),
					func(m *dns.Msg) {
						m.Extra = reply(q, tt.extra...).Answer
					}))
			case dns.TypeA:
				return packed(reply(q, q.Question[0].Name+" 50 A 10.0.0.9"))
			default:
				return packed(reply(q))
			}
		})
		f, err := SRV{Name: "db.test", Resolver: s.address}.Find(t.Context())
		wantFound(t, f, err, tt.ttl, tt.want...)
		var asked []string
		for _, q := range s.questions() {
			if kind := strings.Fields(q)[1]; kind != "SRV" {
				asked = append(asked, kind)
			}
		}
		if slices.Sort(asked); !slices.Equal(asked, tt.asked) {
			t.Errorf("%s: asked for %q, want %q", tt.name, asked, tt.asked)
		}
	}
}

// TestManyTargets has more targets than are looked up at once, two of which fail; each attempt must report the same
// one.
func TestManyTargets(t *testing.T) {
	s := serve(t, func(q *dns.Msg, network string) [][]byte {
		name := q.Question[0].Name
		switch {
		case q.Question[0].Qtype != dns.TypeSRV && (name == "t70.test." || name == "t7.test."):
			return packed(with(reply(q), func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }))
		case q.Question[0].Qtype == dns.TypeA:
			return packed(reply(q, name+" 5 A 10.0.0.1"))
		case q.Question[0].Qtype == dns.TypeAAAA:
			return packed(reply(q))
		case network == "udp":
			return packed(with(reply(q), func(m *dns.Msg) { m.Truncated = true }))
		}
		var targets []string
		for i := range 100 {
			targets = append(targets, fmt.Sprintf("db.test. 5 SRV 0 1 1 t%d.test.", i))
		}
		return packed(reply(q, targets...))
	})
	for range 3 {
		f, err := SRV{Name: "db.test", Resolver: s.address}.Find(t.Context())
		wantFailure(t, f, err, ErrNoSuchName,
			"look up SRV of db.test.: target: look up A/AAAA of t7.test.: no such name")
	}
}

func TestTooManyBackends(t *testing.T) {
	targets := make(map[string]addresses)
	var services []service
	for i := range 101 {
		target := fmt.Sprintf("t%d.test.", i)
		for k := range 100 {
			ip := reply(question("db.test.", dns.TypeA), fmt.Sprintf("t. A 10.0.%d.%d", i, k)).Answer[0]
			a := targets[target]
			a.ips = append(a.ips, addressOf(ip))
			targets[target] = a
		}
		services = append(services, service{target: target, port: 1, weight: 1})
	}
	if got, err := backendsOf(services[:100], targets); err != nil || len(got) != 10_000 {
		t.Errorf("%d backends, error %v; want 10000", len(got), err)
	}
	if got, err := backendsOf(services, targets); !errors.Is(err, ErrTooMany) || got != nil {
		t.Errorf("%d backends, error %v; want ErrTooMany", len(got), err)
	}
}

func TestScale(t *testing.T) {
	for _, tt := range []struct {
		weight, largest uint16
		want            uint32
	}{
		{0, 0, 1}, {0, 9, 1}, {1, 1, 1}, {9, 9, 9}, {256, 256, 256}, {255, 256, 255},
		{257, 257, 256}, {1, 257, 1}, {128, 257, 128}, {0, 65535, 1}, {1, 65535, 1}, {65535, 65535, 256},
		{32768, 65535, 128}, {384, 512, 192},
	} {
		if got := scale(tt.weight, tt.largest); got != tt.want {
			t.Errorf("weight %d beside %d becomes %d, want %d", tt.weight, tt.largest, got, tt.want)
		}
	}
	for largest := range 1 << 16 { // none is out of bounds, and the largest keeps the largest share
		l := uint16(largest)
		for _, w := range []uint16{0, 1, l / 2, l} {
			if got := scale(w, l); got < 1 || got > pool.MaxWeight || w == l && l > pool.MaxWeight &&
				got != pool.MaxWeight {
				t.Fatalf("weight %d beside %d becomes %d", w, l, got)
			}
		}
	}
}
