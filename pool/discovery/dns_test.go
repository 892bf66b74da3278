package discovery

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

func TestDNS(t *testing.T) {
	d := harness.StartDNS(t)
	var many strings.Builder
	var manyBackends []string
	for i := range 400 { // some 6 KiB
		fmt.Fprintf(&many, "many 60 A 10.1.%d.%d\n", i/200, i%200+1)
		manyBackends = append(manyBackends, fmt.Sprintf("10.1.%d.%d:5432", i/200, i%200+1))
	}
	d.SetZone(t, `
both 40 A 10.0.0.12
both 40 A 10.0.0.3
both 30 AAAA 2001:db8::1
four 7 A 10.0.0.1
six 8 AAAA 2001:db8::2
mapped 9 AAAA ::ffff:10.0.0.1
mapped 9 A 10.0.0.1
never 0 A 10.0.0.1
alias 20 CNAME alias2
alias2 3 CNAME both
unused 50 CNAME alias
lonely 5 CNAME nothing
wrong 5 A 239.1.2.3
wrong 5 AAAA ff02::1
wrong 5 AAAA ::
nothing TXT "nothing of interest"
`+many.String())
	for _, tt := range []struct {
		name string
		ttl  time.Duration
		want []string
	}{
		{"both", 30 * time.Second, []string{"10.0.0.3:5432", "10.0.0.12:5432", "[2001:db8::1]:5432"}},
		{"four", 7 * time.Second, []string{"10.0.0.1:5432"}},
		{"six", 8 * time.Second, []string{"[2001:db8::2]:5432"}},
		{"mapped", 9 * time.Second, []string{"10.0.0.1:5432"}},
		{"never", time.Second, []string{"10.0.0.1:5432"}},
		{"alias", 3 * time.Second, []string{"10.0.0.3:5432", "10.0.0.12:5432", "[2001:db8::1]:5432"}},
		{"unused", 3 * time.Second, []string{"10.0.0.3:5432", "10.0.0.12:5432", "[2001:db8::1]:5432"}},
		{"many", time.Minute, manyBackends},
	} {
		f, err := DNS{Name: tt.name + ".lb.test", Port: 5432, Resolver: d.Address}.Find(t.Context())
		wantFound(t, f, err, tt.ttl, tt.want...)
	}
	for _, tt := range []struct {
		name string
		kind error
		text string
	}{
		{"gone.lb.test", ErrNoSuchName, "look up A/AAAA of gone.lb.test.: no such name"},
		{"nothing.lb.test", ErrNoRecords, "look up A/AAAA of nothing.lb.test.: the name has no records"},
		{"lonely.lb.test", ErrNoRecords,
			"look up A/AAAA of lonely.lb.test.: the name has no records: it is an alias of nothing.lb.test."},
		{"wrong.lb.test", ErrBadBackend,
			"look up A/AAAA of wrong.lb.test.: unusable backend: 239.1.2.3:5432, [::]:5432, [ff02::1]:5432"},
		{"example.com", ErrRefused, "look up A of example.com. at " + d.Address + ": the server refused: REFUSED"},
	} {
		f, err := DNS{Name: tt.name, Port: 5432, Resolver: d.Address}.Find(t.Context())
		wantFailure(t, f, err, tt.kind, tt.text)
	}
}

func TestUnusableAreNamedInShort(t *testing.T) {
	s := serve(t, onlyA(func(q *dns.Msg, _ string) [][]byte {
		m := reply(q)
		for i := range 9 {
			m.Answer = append(m.Answer, reply(q, fmt.Sprintf("db.test. 5 A 224.0.0.%d", i)).Answer...)
		}
		return packed(m)
	}))
	f, err := DNS{Name: "db.test", Port: 1, Resolver: s.address}.Find(t.Context())
	wantFailure(t, f, err, ErrBadBackend, "look up A/AAAA of db.test.: unusable backend: "+
		"224.0.0.0:1, 224.0.0.1:1, 224.0.0.2:1, 224.0.0.3:1, 224.0.0.4:1 and 4 more")
}

// TestRecordsOfOthers has answers with more records than were asked for.
func TestRecordsOfOthers(t *testing.T) {
	s := serve(t, onlyA(func(q *dns.Msg, _ string) [][]byte {
		return packed(reply(q,
			"other.test. 1 A 10.66.66.66",
			"b.test. 1 CNAME other.test.",
			"db.test. 1 CH A 10.66.66.67",
			"db.test. 5 A 10.0.0.1",
			"db.test. 1 TXT \"10.66.66.68\"",
			"DB.test. 6 A 10.0.0.2",
			"db.test. 7 A 10.0.0.1"))
	}))
	f, err := DNS{Name: "db.test", Port: 1, Resolver: s.address}.Find(t.Context())
	wantFound(t, f, err, 5*time.Second, "10.0.0.1:1", "10.0.0.2:1")
}

func TestTTLs(t *testing.T) {
	for _, tt := range []struct {
		records []string
		want    time.Duration
	}{
		{[]string{"db.test. 5 A 10.0.0.1"}, 5 * time.Second},
		{[]string{"db.test. 0 A 10.0.0.1"}, time.Second},
		{[]string{"db.test. 2147483647 A 10.0.0.1"}, (1<<31 - 1) * time.Second},
		{[]string{"db.test. 2147483648 A 10.0.0.1"}, time.Second}, // RFC 2181, 8: as if it were 0
		{[]string{"db.test. 4 CNAME b.test.", "b.test. 5 A 10.0.0.1"}, 4 * time.Second},
		{[]string{"db.test. 6 CNAME b.test.", "b.test. 5 A 10.0.0.1"}, 5 * time.Second},
	} {
		s := serve(t, onlyA(func(q *dns.Msg, _ string) [][]byte { return packed(reply(q, tt.records...)) }))
		f, err := DNS{Name: "db.test", Port: 1, Resolver: s.address}.Find(t.Context())
		wantFound(t, f, err, tt.want, "10.0.0.1:1")
	}
}

// TestFollowsDNS has a TTL of a second beside a refresh of an hour.
func TestFollowsDNS(t *testing.T) {
	t.Parallel()
	d := harness.StartDNS(t)
	d.SetZone(t, "db 1 A 10.0.0.1")
	p := new(fakePool)
	r := New(Options{
		Name: "dns", Source: DNS{Name: "db.lb.test", Port: 5432, Resolver: d.Address}, Pool: p, Refresh: time.Hour,
	})
	defer run(t, r)()
	select {
	case <-r.First():
	case <-time.After(harness.Patience):
		t.Fatal("the first attempt has no end")
	}
	wantLines(t, p.take(), "dns: 1 found, +1 -0 ~0, 0 ignored")
	if got := p.now(); got != "10.0.0.1:5432" {
		t.Errorf("after the first attempt the pool has %s", got)
	}
	d.SetZone(t, "db 1 A 10.0.0.2\ndb 1 AAAA 2001:db8::1")
	p.eventually(t, "10.0.0.2:5432", "[2001:db8::1]:5432")
	p.eventuallyReported(t, "dns: 2 found, +2 -1 ~0, 0 ignored")
}

// TestServerThatGoesAndComesBack holds that a server's end and return are reported once each, and cost no backend.
func TestServerThatGoesAndComesBack(t *testing.T) {
	t.Parallel()
	d := harness.StartDNS(t)
	d.SetZone(t, "db 60 A 10.0.0.1")
	p, source := new(fakePool), &counted{Source: DNS{Name: "db.lb.test", Port: 5432, Resolver: d.Address}}
	defer run(t, New(Options{Name: "dns", Source: source, Pool: p, Refresh: 500 * time.Millisecond}))()
	p.eventually(t, "10.0.0.1:5432")
	p.eventuallyReported(t, "dns: 1 found, +1 -0 ~0, 0 ignored")

	d.Kill(t)
	killed := source.times.Load()
	harness.Eventually(t, "the dead server is asked several times", func() error {
		if n := source.times.Load() - killed; n < 4 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	lines := p.take()
	if len(lines) == 2 {
		lines = lines[1:] // the server died with a question in hand, which is another error
	}
	wantLines(t, lines, "dns: -0, look up A of db.lb.test. at "+d.Address+": no answer: connection refused")
	p.eventually(t, "10.0.0.1:5432")

	d.Restart(t)
	p.eventuallyReported(t, "dns: 1 found, +0 -0 ~0, 0 ignored")
	d.SetZone(t, "db 1 A 10.0.0.3")
	p.eventually(t, "10.0.0.3:5432")
}

func TestEmptiedWhenTheServerGoes(t *testing.T) {
	t.Parallel()
	d := harness.StartDNS(t)
	d.SetZone(t, "db 1 A 10.0.0.1")
	p := new(fakePool)
	defer run(t, New(Options{
		Name: "dns", Source: DNS{Name: "db.lb.test", Port: 5432, Resolver: d.Address}, Pool: p, OnError: Empty,
	}))()
	p.eventually(t, "10.0.0.1:5432")
	d.Stop(t)
	p.eventually(t)
	d.Restart(t)
	p.eventually(t, "10.0.0.1:5432")
}

// A counted is a Source that counts how often it was asked.
type counted struct {
	Source
	times atomic.Int64
}

// Find implements Source.
func (c *counted) Find(ctx context.Context) (Found, error) {
	c.times.Add(1)
	return c.Source.Find(ctx)
}
