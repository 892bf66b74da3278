package discovery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestFamily has hosts of one family and of both: each is one backend where a family is named.
func TestFamily(t *testing.T) {
	d := harness.StartDNS(t)
	d.SetZone(t, `
pods 40 A 10.0.0.1
pods 40 A 10.0.0.2
pods 30 AAAA 2001:db8::1
pods 30 AAAA 2001:db8::2
six 30 AAAA 2001:db8::3
_pods._tcp 60 SRV 1 1 5432 one
_pods._tcp 60 SRV 1 2 5433 two
one 40 A 10.0.0.1
one 40 AAAA 2001:db8::1
two 40 A 10.0.0.2
two 40 AAAA 2001:db8::2
`)
	for _, tt := range []struct {
		family  Family
		ttl     time.Duration
		want    []string
		asked   int
		srv     []string
		onPort  []string
		noneFor string
	}{
		{AnyFamily, 30 * time.Second, []string{"10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1"}, 2,
			[]string{"10.0.0.1:5432 w1 t1", "10.0.0.2:5433 w2 t1", "[2001:db8::1]:5432 w1 t1",
				"[2001:db8::2]:5433 w2 t1"},
			[]string{"10.0.0.1:6432 w1 t1", "10.0.0.2:6432 w2 t1", "[2001:db8::1]:6432 w1 t1",
				"[2001:db8::2]:6432 w2 t1"}, ""},
		{IPv4, 40 * time.Second, []string{"10.0.0.1:1", "10.0.0.2:1"}, 1,
			[]string{"10.0.0.1:5432 w1 t1", "10.0.0.2:5433 w2 t1"},
			[]string{"10.0.0.1:6432 w1 t1", "10.0.0.2:6432 w2 t1"},
			"look up A of six.lb.test.: the name has no records"},
		{IPv6, 30 * time.Second, []string{"[2001:db8::1]:1", "[2001:db8::2]:1"}, 1,
			[]string{"[2001:db8::1]:5432 w1 t1", "[2001:db8::2]:5433 w2 t1"},
			[]string{"[2001:db8::1]:6432 w1 t1", "[2001:db8::2]:6432 w2 t1"}, ""},
	} {
		t.Run(tt.family.String(), func(t *testing.T) {
			f, err := DNS{Name: "pods.lb.test", Port: 1, Resolver: d.Address, Family: tt.family}.Find(t.Context())
			wantFound(t, f, err, tt.ttl, tt.want...)
			if f.Asked != tt.asked {
				t.Errorf("it took %d questions, want %d", f.Asked, tt.asked)
			}
			f, err = DNS{Name: "six.lb.test", Port: 1, Resolver: d.Address, Family: tt.family}.Find(t.Context())
			if tt.noneFor != "" {
				wantFailure(t, f, err, ErrNoRecords, tt.noneFor)
			} else {
				wantFound(t, f, err, 30*time.Second, "[2001:db8::3]:1")
			}
			f, err = SRV{Name: "_pods._tcp.lb.test", Resolver: d.Address, Family: tt.family}.Find(t.Context())
			wantFound(t, f, err, 40*time.Second, tt.srv...)
			f, err = SRV{Name: "_pods._tcp.lb.test", Port: 6432, Resolver: d.Address,
				Family: tt.family}.Find(t.Context())
			wantFound(t, f, err, 40*time.Second, tt.onPort...)
		})
	}
}

// TestFamilyThatIsNotWanted holds that a failing question for an unwanted family does no harm.
func TestFamilyThatIsNotWanted(t *testing.T) {
	s := serve(t, onlyA(addresses10))
	f, err := DNS{Name: "db.test", Port: 1, Resolver: s.address, Family: IPv4}.Find(t.Context())
	wantFound(t, f, err, 5*time.Second, "10.0.0.1:1")
	if asked := s.questions(); slices.ContainsFunc(asked, func(q string) bool { return strings.Contains(q, "AAAA") }) {
		t.Errorf("it was asked %q", asked)
	}
}
