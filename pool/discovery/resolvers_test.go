package discovery

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestSystemResolvers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		conf     string
		servers  string
		timeout  time.Duration
		attempts int
		names    string // that "db" may stand for
	}{
		{"empty", "", "127.0.0.1:53", 5 * time.Second, 2, "db."},
		{"usual", "# by hand\nnameserver 10.0.0.53\nnameserver 2001:db8::53\nsearch example.com\n",
			"10.0.0.53:53 [2001:db8::53]:53", 5 * time.Second, 2, "db.example.com. db."},
		{"with options", "nameserver fe80::1%eth0\noptions timeout:1 attempts:3 ndots:0\nsearch a.example b.example.\n",
			"[fe80::1%eth0]:53", time.Second, 3, "db. db.a.example. db.b.example."},
		{"no domains, as systemd-resolved writes it", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
			"127.0.0.53:53", 5 * time.Second, 2, "db."},
		{"beyond the limits", "nameserver dns.example.com\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n" +
			"options timeout:99999999999 attempts:1000000\nsearch a b c d e f g h",
			"10.0.0.1:53 10.0.0.2:53 10.0.0.3:53", 30 * time.Second, 5, "db.a. db.b. db.c. db.d. db.e. db.f. db."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			must(t, os.WriteFile(path, []byte(tt.conf), 0o600))
			r, err := systemResolvers(path)
			must(t, err)
			if got := strings.Join(r.servers, " "); got != tt.servers || r.timeout != tt.timeout ||
				r.attempts != tt.attempts {
				t.Errorf("servers %s, timeout %v, %d attempts; want %s, %v, %d", got, r.timeout, r.attempts, tt.servers,
					tt.timeout, tt.attempts)
			}
			if got := strings.Join(r.names("db"), " "); got != tt.names {
				t.Errorf("names are %s, want %s", got, tt.names)
			}
			if got := r.names("db.example."); !slices.Equal(got, []string{"db.example."}) {
				t.Errorf("a fully qualified name may be %s, want it alone", got)
			}
		})
	}
}

func TestNoResolvConf(t *testing.T) {
	dir := t.TempDir()
	r, err := systemResolvers(filepath.Join(dir, "resolv.conf"))
	if err != nil || !slices.Equal(r.servers, []string{"127.0.0.1:53"}) {
		t.Errorf("without the file the servers are %v, error %v; want that of this machine", r.servers, err)
	}
	if _, err := systemResolvers(dir); err == nil {
		t.Error("a folder was taken as a resolv.conf")
	}
}

func TestGivenResolver(t *testing.T) {
	r, err := newResolvers("[::1]:5353")
	must(t, err)
	if !slices.Equal(r.servers, []string{"[::1]:5353"}) || !slices.Equal(r.names("db.internal"),
		[]string{"db.internal."}) {
		t.Errorf("servers are %v, names %v", r.servers, r.names("db.internal"))
	}
	f, err := DNS{Name: "db.internal", Resolver: "localhost:53"}.Find(t.Context())
	if text := `look up A/AAAA of db.internal: no usable resolver: `; !errors.Is(err, ErrBadResolver) ||
		!strings.HasPrefix(err.Error(), text) {
		t.Errorf("found %v, error %v; want ErrBadResolver", f, err)
	}
	if _, err := (SRV{Name: "db.internal", Resolver: "10.0.0.1"}).Find(t.Context()); !errors.Is(err, ErrBadResolver) {
		t.Errorf("SRV: error %v, want ErrBadResolver", err)
	}
}

func TestSearch(t *testing.T) {
	failure := func(kind error) error { return &LookupError{Kind: kind} }
	none, noData, failed := failure(ErrNoSuchName), failure(ErrNoRecords), failure(ErrServerFailed)
	for _, tt := range []struct {
		name    string
		names   []string
		answers []error
		asked   string
		want    error
	}{
		{"the first", []string{"a.", "b."}, []error{nil}, "a.", nil},
		{"the next after one that does not exist", []string{"a.", "b."}, []error{none, nil}, "a. b.", nil},
		{"the next after one without records", []string{"a.", "b."}, []error{noData, nil}, "a. b.", nil},
		{"none after one that could not be looked up", []string{"a.", "b."}, []error{failed, nil}, "a.", failed},
		{"no name exists", []string{"a.", "b."}, []error{none, failure(ErrNoSuchName)}, "a. b.", none},
		{"a name exists", []string{"a.", "b.", "c."}, []error{none, noData, none}, "a. b. c.", noData},
		{"a name too long is passed over", []string{strings.Repeat("a.", 150), "b."}, []error{nil}, "b.", nil},
		{"a label too long is passed over", []string{strings.Repeat("a", 64) + ".", "b."}, []error{nil}, "b.", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			r := resolvers{names: func(string) []string { return tt.names }}
			_, err := search(r, "x", "A", func(name string) (int, error) {
				asked = append(asked, name)
				return 0, tt.answers[len(asked)-1]
			})
			if got := strings.Join(asked, " "); got != tt.asked || err != tt.want {
				t.Errorf("asked %s, error %v; want %s, %v", got, err, tt.asked, tt.want)
			}
		})
	}
}

func TestNamesThatAreNone(t *testing.T) {
	s := serve(t, addresses10)
	for _, name := range []string{"", ".", "a..b", strings.Repeat("a", 64), strings.Repeat("a.", 128)} {
		f, err := DNS{Name: name, Port: 1, Resolver: s.address}.Find(t.Context())
		wantFailure(t, f, err, ErrBadName, "look up A/AAAA of "+name+": not a domain name")
	}
	if asked := s.questions(); asked != nil {
		t.Errorf("asked %q", asked)
	}
}

// TestNamesWrittenOtherwise must be known again in the answer.
func TestNamesWrittenOtherwise(t *testing.T) {
	s := serve(t, onlyA(func(q *dns.Msg, _ string) [][]byte {
		m := reply(q, "x. 5 A 10.0.0.1")
		m.Answer[0].Header().Name = strings.ToUpper(q.Question[0].Name)
		m.Question[0].Name = m.Answer[0].Header().Name
		return packed(m)
	}))
	for _, name := range []string{"db.test", "DB.Test.", `\100b.test`, "bücher.test", `a\.b.test`, "a b.test"} {
		f, err := DNS{Name: name, Port: 1, Resolver: s.address}.Find(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantFound(t, f, err, 5*time.Second, "10.0.0.1:1")
	}
}
