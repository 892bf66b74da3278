package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

func TestReadConnURL(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"postgres://10.0.0.1:5433/postgres?application_name=x", "10.0.0.1 5433"},
		{"postgresql://10.0.0.1/postgres", "10.0.0.1 5432"},
		{"postgres://[2001:db8::1]:5432/postgres", "2001:db8::1 5432"},
		{"postgres://[fe80::1%25eth0]:5432/", "fe80::1%eth0 5432"},
		{"postgres://Db-1.internal:6000/postgres", "Db-1.internal 6000"},
		{"postgres://user:secret@127.0.0.1:5432/postgres", "127.0.0.1 5432"},
		{"", "it has no conn_url"},
		{"postgres://", `its host is "": needs an IP address or a host name`},
		{"postgres://:5432/postgres", `its host is "": needs an IP address or a host name`},
		{"postgres://10.0.0.1:0/", `its conn_url has the port "0": needs 1 to 65535`},
		{"postgres://10.0.0.1:65536/", `its conn_url has the port "65536": needs 1 to 65535`},
		{"postgres://user:secret@10.0.0.1:54 32/", "its conn_url is not a URL"},
		{"postgres://10.0.0.300:5432/", `its host is "10.0.0.300": needs an IP address or a host name`},
		{"postgres://0.0.0.0:5432/", "its address is 0.0.0.0: needs one that can be connected to"},
		{"postgres://[::ffff:224.0.0.1]:5432/", "its address is 224.0.0.1: needs one that can be connected to"},
		{"postgres://[fe80::1]:5432/", "its address is fe80::1: needs one that can be connected to"},
		{"postgres://a..b:5432/", `its host is "a..b": needs an IP address or a host name`},
		{"http://10.0.0.1:5432/", `its conn_url begins with "http:": needs "postgres://HOST:PORT/..."`},
		{"10.0.0.1:5432", "its conn_url is not a URL"},
		{"host=10.0.0.1 port=5432", `its conn_url begins with ":": needs "postgres://HOST:PORT/..."`},
		{"postgres://" + strings.Repeat("a", 300) + ":5432/",
			`its host is "` + strings.Repeat("a", 80) + `"...: needs an IP address or a host name`},
	} {
		host, port, err := readConnURL(tt.url)
		got := fmt.Sprintf("%s %d", host, port)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q is %q, want %q", tt.url, got, tt.want)
		}
	}
}

// membersOf returns the members that a Patroni with these keys has.
func membersOf(o PatroniOptions, keys map[string]string) ([]clusterMember, error) {
	o.Scope, o.Endpoints = "main", []string{"http://etcd:1"}
	p := NewPatroni(o)
	var changes []etcd.KeyChange
	for k, v := range keys {
		changes = append(changes, etcd.KeyChange{Key: k, Value: []byte(v)})
	}
	p.take(changes)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.membersLocked()
}

func literal(host string) (netip.Addr, error) { return netip.ParseAddr(host) }

// TestPatroniRules: which members are replicas, and which of those get no new sessions.
func TestPatroniRules(t *testing.T) {
	value := func(port int, more string) string {
		return fmt.Sprintf(`{"conn_url":"postgres://10.0.0.1:%d/",%s}`, port, more)
	}
	const runs = `"state":"running"`
	for _, tt := range []struct {
		what string
		lag  int64
		keys map[string]string
		want string
	}{
		{"no leader", 0, map[string]string{"members/a": value(1, runs)}, "a 1 replica"},
		{"an unknown leader", 0, map[string]string{"leader": "z", "members/a": value(1, runs)}, "a 1 replica"},
		{"the leader does not run, is tagged and behind", 10, map[string]string{"leader": "a", "status": `{"optime":100}`,
			"members/a": value(1, `"state":"stopped","tags":{"noloadbalance":true},"xlog_location":1`)}, "a 1 primary"},
		{"states", 0, map[string]string{
			"members/a": value(1, `"state":"streaming"`), "members/b": value(2, `"state":"in archive recovery"`),
			"members/c": value(3, `"state":"starting"`), "members/d": value(4, `"state":"creating replica"`),
			"members/e": value(5, `"role":"replica"`)},
			"a 1 replica, b 2 replica, c 3 replica idle, d 4 replica idle, e 5 replica idle"},
		{"tags", 0, map[string]string{
			"members/a": value(1, runs+`,"tags":{"noloadbalance":true}`),
			"members/b": value(2, runs+`,"tags":{"noloadbalance":"Yes"}`),
			"members/c": value(3, runs+`,"tags":{"noloadbalance":1}`),
			"members/d": value(4, runs+`,"tags":{"noloadbalance":false,"nofailover":true,"nosync":true}`),
			"members/e": value(5, runs+`,"tags":{"noloadbalance":{"x":[]}}`)},
			"a 1 replica idle, b 2 replica idle, c 3 replica idle, d 4 replica, e 5 replica"},
		{"lag", 100, map[string]string{"leader": "a", "status": `{"optime":1000,"slots":{"a":1}}`, "optime/leader": "5000",
			"members/a": value(1, runs), "members/b": value(2, runs+`,"xlog_location":900`),
			"members/c": value(3, runs+`,"xlog_location":899`), "members/d": value(4, runs)},
			"a 1 primary, b 2 replica, c 3 replica idle, d 4 replica idle"},
		{"lag before Patroni 2.1", 100, map[string]string{"leader": "a", "optime/leader": "1000",
			"members/b": value(2, runs+`,"xlog_location":900`), "members/c": value(3, runs+`,"xlog_location":899`)},
			"b 2 replica, c 3 replica idle"},
		{"lag of nobody knows whom", 100, map[string]string{"members/b": value(2, runs+`,"xlog_location":1`)}, "b 2 replica"},
		{"lag is not looked at", 0, map[string]string{"status": `{"optime":1000}`, "members/b": value(2, runs)},
			"b 2 replica"},
		{"a standby cluster by its configuration", 0, map[string]string{"leader": "a",
			"config": `{"standby_cluster":{"host":"10.9.9.9"}}`, "members/a": value(1, runs)}, "a 1 replica"},
		{"a standby cluster that is promoted", 0, map[string]string{"leader": "a", "config": `{"standby_cluster":null}`,
			"members/a": value(1, runs+`,"role":"standby_leader"`)}, "a 1 primary"},
		{"a standby cluster without host", 0, map[string]string{"leader": "a", "config": `{"standby_cluster":{"port":0}}`,
			"members/a": value(1, runs)}, "a 1 primary"},
		{"a standby cluster by its member", 0, map[string]string{"leader": "a", "config": "?",
			"members/a": value(1, runs+`,"role":"standby_leader"`)}, "a 1 replica"},
		{"other keys", 0, map[string]string{"members/a": value(1, runs), "members/": "x", "members/a/b": "x",
			"sync": "x", "history": "x", "0/leader": "a"}, "a 1 replica"},
	} {
		members, err := membersOf(PatroniOptions{MaxLag: tt.lag}, tt.keys)
		specs, unusable := specsOf(members, literal)
		if got := inRoles(specs); err != nil || unusable != nil || got != tt.want {
			t.Errorf("%s: %q, unusable %v, error %v; want %q", tt.what, got, unusable, err, tt.want)
		}
	}
}

// TestPatroniUnusable: members that are of no use do not stand in the way of the others.
func TestPatroniUnusable(t *testing.T) {
	good := func(port int) string {
		return fmt.Sprintf(`{"conn_url":"postgres://10.0.0.1:%d/","state":"running"}`, port)
	}
	for _, tt := range []struct {
		keys       map[string]string
		want, says string
	}{
		{map[string]string{"leader": "b", "members/a": "{", "members/b": good(2)}, "b 2 primary",
			"a: its value is not the JSON of a member: unexpected end of JSON input"},
		{map[string]string{"leader": "a", "members/a": `{"conn_url":5}`, "members/b": good(2)}, "b 2 replica",
			`a: its value is not the JSON of a member: the field "conn_url" has a number`},
		{map[string]string{"members/a": `{"conn_url":"postgres://"}`, "members/c": "[]", "members/b": good(2)},
			"b 2 replica", `a: its host is "": needs an IP address or a host name, ` +
				`c: its value is not the JSON of a member: the field "" has a array`},
		{map[string]string{"members/a": strings.Repeat("x", maxMemberBytes+1), "members/b": good(2)}, "b 2 replica",
			"a: its value has more than 65536 bytes"},
		{map[string]string{"members/a\n\x1b[2J": good(1), "members/b": good(2)}, "b 2 replica",
			`"a\n\x1b[2J": the name is not 1 to 64 letters, digits, '_', '-' or '.'`},
		{map[string]string{"leader": "b", "members/a": good(1), "members/b": good(1), "members/c": good(1)}, "b 1 primary",
			"a: b has the same address, 10.0.0.1:1, c: b has the same address, 10.0.0.1:1"},
		{map[string]string{"members/a": good(1), "members/b": good(1)}, "a 1 replica",
			"b: a has the same address, 10.0.0.1:1"},
		{map[string]string{"members/a": strings.Repeat("[", maxMemberBytes), "members/b": good(2)}, "b 2 replica",
			"a: its value is not the JSON of a member: invalid character '[' exceeded max depth"},
	} {
		members, err := membersOf(PatroniOptions{}, tt.keys)
		specs, unusable := specsOf(members, literal)
		if err != nil || unusable == nil || unusable.Error() != tt.says || inRoles(specs) != tt.want {
			t.Errorf("%q, error %v, unusable\n%v, want %q and\n%s", inRoles(specs), err, unusable, tt.want, tt.says)
		}
	}
	_, err := foundMembers("etcd", []string{"x"}, []clusterMember{{name: "a", err: errors.New("broken")}}, literal)
	if !errors.Is(err, ErrNoMembers) || err.Error() != "ask etcd at x: no usable member: a: broken" {
		t.Errorf("a cluster without any usable member: %v", err)
	}
	many := make(map[string]string)
	for i := range maxClusterMembers + 200 {
		many[fmt.Sprintf("members/n%d", i)] = good(i + 1)
	}
	if _, err := membersOf(PatroniOptions{}, many); !errors.Is(err, ErrTooMuchData) {
		t.Errorf("%d members: %v", len(many), err)
	}
}

// TestPatroniHosts: host names are looked up once, keep their last address, and are looked up again from time to time.
func TestPatroniHosts(t *testing.T) {
	var asked atomic.Int32
	answer := map[string]string{"db1": "10.0.0.1", "db2": "2001:db8::2"}
	h := hosts{lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
		asked.Add(1)
		if answer[host] == "" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr(answer[host])}, nil
	}}
	want := func(host, want string) {
		t.Helper()
		ip, err := h.addr(host)
		got := ip.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s is %s, want %s", host, got, want)
		}
	}
	const long = time.Hour
	want("10.1.1.1", "10.1.1.1")
	want("db1", `its host "db1" is not looked up yet`)
	names := []string{"db1", "db2", "db3", "db1", "10.1.1.1"}
	if !h.look(t.Context(), names, long) || h.look(t.Context(), names, long) || asked.Load() != 3 {
		t.Errorf("%d lookups", asked.Load())
	}
	want("db1", "10.0.0.1")
	want("db2", "2001:db8::9")
	want("db3", `its host "db3" has no address: no such host`)
	delete(answer, "db1")
	answer["db3"] = "10.0.0.3"
	if !h.look(t.Context(), names, 0) {
		t.Error("a new address is no change")
	}
	want("db1", "10.0.0.1")
	want("db3", "10.0.0.3")
	h.look(t.Context(), []string{"db3"}, long)
	want("db1", `its host "db1" is not looked up yet`)
}

// FuzzPatroniMember: whatever a member's value is, a member of use has a valid address and name, and no text is quoted
// at length.
func FuzzPatroniMember(f *testing.F) {
	for _, value := range []string{
		memberValue(5432, "replica"), "{", "[]", `{"conn_url":"postgres://[::1]:5432/"}`, `{"conn_url":"postgres://a@b:c"}`,
		`{"conn_url":"postgres://db.internal/x","tags":{"noloadbalance":"on"},"xlog_location":-1}`,
		`{"conn_url":null,"tags":null,"state":7}`, `postgres://10.0.0.1:5432/postgres`,
	} {
		f.Add("n1", []byte(value))
	}
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		_, m := readMember(name, value)
		specs, unusable := specsOf([]clusterMember{m}, func(host string) (netip.Addr, error) {
			if ip, err := netip.ParseAddr(host); err == nil {
				return ip, nil
			}
			if err := checkMemberHost(host); err != nil {
				t.Errorf("a member of use has the host %q: %v", host, err)
			}
			return netip.MustParseAddr("10.0.0.1"), nil
		})
		if (len(specs) == 1) == (unusable != nil) {
			t.Errorf("%d backends and %v", len(specs), unusable)
		}
		if len(specs) == 1 && (specs[0].Addr.Port() == 0 || !validMemberName(specs[0].ID)) {
			t.Errorf("backend %+v", specs[0])
		}
		if unusable != nil && (len(unusable.Error()) > 1000 || slices.ContainsFunc([]byte(unusable.Error()),
			func(c byte) bool { return c < ' ' })) {
			t.Errorf("error %q", unusable)
		}
	})
}
