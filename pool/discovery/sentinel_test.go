package discovery

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

const (
	serverA, serverB, serverC = "10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"
)

// TestSentinelMajority has Sentinels that agree, lie and fail.
func TestSentinelMajority(t *testing.T) {
	t.Parallel()
	well := func(addr string) fakeReplica { return fakeReplica{addr, "slave", "ok"} }
	down := func(addr string) fakeReplica { return fakeReplica{addr, "s_down,slave,disconnected", "err"} }
	cut := func(addr string) fakeReplica { return fakeReplica{addr, "slave", "err"} }
	type says struct {
		master   string // "" fails
		replicas []fakeReplica
	}
	for _, tt := range []struct {
		name     string
		says     []says
		want     string // "N:" is the address of endpoint N
		unusable string
		kind     error
	}{
		{"all agree", []says{
			{serverA, []fakeReplica{well(serverB), well(serverC)}},
			{serverA, []fakeReplica{well(serverC), well(serverB)}},
			{serverA, []fakeReplica{well(serverB), well(serverC)}},
		}, "primary " + serverA + ", replica " + serverB + ", replica " + serverC, "", nil},
		{"one Sentinel only", []says{{serverA, nil}}, "primary " + serverA, "", nil},
		{"a lie", []says{{serverA, nil}, {serverB, []fakeReplica{well(serverA)}}, {serverA, nil}}, "primary " + serverA,
			"Sentinel 1: it names the master " + serverB + ", and most others name " + serverA, nil},
		{"one is away", []says{{serverA, nil}, {serverA, nil}, {"", nil}}, "primary " + serverA,
			"Sentinel 2: no answer: it closed the connection; if it speaks TLS, it needs tls = true", nil},
		{"two are away", []says{{serverA, nil}, {"", nil}, {"", nil}},
			`ask Sentinels for "mymaster": no majority of 3 endpoints: 0 names ` + serverA + " (config epoch 1), " +
				"1: no answer: it closed the connection; if it speaks TLS, it needs tls = true, " +
				"2: no answer: it closed the connection; if it speaks TLS, it needs tls = true",
			"", ErrNoMajority},
		{"all are away", []says{{"", nil}, {"", nil}},
			`ask Sentinels for "mymaster": all 2 endpoints: no answer: it closed the connection; if it speaks TLS, it ` +
				`needs tls = true`,
			"", ErrNoAnswer},
		{"half is not enough", []says{{serverA, nil}, {serverA, nil}, {serverB, nil}, {serverB, nil}},
			`ask Sentinels for "mymaster": no majority of 4 endpoints: 0 names ` + serverA + " (config epoch 1), 1 names " +
				serverA + " (config epoch 1), 2 names " + serverB + " (config epoch 1), 3 names " + serverB +
				" (config epoch 1)", "", ErrNoMajority},
		{"replicas that one Sentinel names are nobody's", []says{
			{serverA, []fakeReplica{well(serverB), well("10.0.0.66:6379")}}, {serverA, []fakeReplica{well(serverB)}},
			{serverA, nil},
		}, "primary " + serverA + ", replica " + serverB, "", nil},
		{"replicas that are down", []says{
			{serverA, []fakeReplica{down(serverB), cut(serverC)}}, {serverA, []fakeReplica{down(serverB), cut(serverC)}},
			{serverA, []fakeReplica{well(serverB), well(serverC)}},
		}, "primary " + serverA + ", replica " + serverB + " w0, replica " + serverC + " w0", "", nil},
		{"replicas that half of them see down", []says{
			{serverA, []fakeReplica{down(serverB)}}, {serverA, []fakeReplica{well(serverB)}},
		}, "primary " + serverA + ", replica " + serverB, "", nil},
		{"a failover that most have seen", []says{
			{serverB, []fakeReplica{down(serverA), cut(serverC)}}, {serverB, []fakeReplica{down(serverA), cut(serverC)}},
			{serverA, []fakeReplica{well(serverB), well(serverC)}},
		}, "primary " + serverB + ", replica " + serverA + " w0, replica " + serverC + " w0",
			"Sentinel 2: it names the master " + serverA + ", and most others name " + serverB, nil},
		{"addresses that nothing listens on", []says{{"0.0.0.0:6379", nil}},
			`ask Sentinels for "mymaster": 0: no usable answer: the master is at "0.0.0.0:6379"`,
			"", ErrBadAnswer},
		{"an address with a zone", []says{{"[fe80::1%eth0]:6379", nil}},
			`ask Sentinels for "mymaster": 0: no usable answer: the master is at "fe80::1%eth0:6379"`, "", ErrBadAnswer},
		{"a name", []says{{"localhost:6379", []fakeReplica{well("nowhere.invalid:1"), well("a b:1")}}},
			"primary 127.0.0.1:6379", "", nil},
		{"a name that is nowhere", []says{{"nowhere.invalid:1", nil}},
			`ask Sentinels for "mymaster": 0: no usable answer: the master "nowhere.invalid:1" has no usable address`,
			"", ErrBadAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var fakes []*fakeSentinel
			for _, says := range tt.says {
				f := startFakeSentinel(t, says.master, says.replicas...)
				if says.master == "" {
					f.answer = func([]string) (string, bool) { f.closeAll(); return "", true }
				}
				fakes = append(fakes, f)
			}
			s := sentinelsAt(fakes...)
			numbered := func(text string) string {
				for i, f := range fakes {
					text = strings.ReplaceAll(text, f.address, string(rune('0'+i)))
				}
				return text
			}
			found, err := s.Find(t.Context())
			if got := numbered(summary(found, err)); got != tt.want {
				t.Errorf("found\n%s, want\n%s", got, tt.want)
			}
			if tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("the error %v is not %v", err, tt.kind)
			}
			var got string
			if found.Unusable != nil {
				got = numbered(found.Unusable.Error())
			}
			if got != tt.unusable {
				t.Errorf("unusable\n%s, want\n%s", got, tt.unusable)
			}
		})
	}
}

// closeAll closes all connections; the caller holds mu.
func (f *fakeSentinel) closeAll() {
	for c := range f.conns {
		c.Close()
	}
}

// TestSentinelsThatFollow has two of three Sentinels, of which one follows the other's switch a moment later: the
// answer waits for it.
func TestSentinelsThatFollow(t *testing.T) {
	t.Parallel()
	first, second := startFakeSentinel(t, serverB), startFakeSentinel(t, serverA)
	var asked int
	second.answer = func(words []string) (string, bool) { // with mu held
		if words[0] == "SENTINEL" && words[1] == "replicas" {
			if asked++; asked == 2 {
				second.master = serverB
			}
		}
		return "", false
	}
	s := sentinelsAt(first, second)
	s.Endpoints = append(s.Endpoints, harness.FreeAddress(t)) // where nobody is
	if got := summary(s.Find(t.Context())); got != "primary "+serverB {
		t.Errorf("found %s", got)
	}
}

// TestSentinelThatHangs has one of three Sentinels that accepts and says nothing: while a change waits it is not waited
// for, and otherwise the answer says so, and the next ones do, too, until it does well.
func TestSentinelThatHangs(t *testing.T) {
	t.Parallel()
	a, b, c := startFakeSentinel(t, serverA), startFakeSentinel(t, serverA), startFakeSentinel(t, serverA)
	c.answer = func([]string) (string, bool) { return "", true }
	s := sentinelsAt(a, b, c)
	timedOut := "Sentinel " + c.address + ": no answer: timed out"
	for i, want := range []string{"<nil>", timedOut, timedOut, "<nil>"} {
		if i%2 == 0 {
			s.changed <- struct{}{}
		}
		if i == 3 {
			c.set(func() { c.answer = nil })
		}
		found, err := s.Find(t.Context())
		if got := summary(found, err); got != "primary "+serverA || fmt.Sprint(found.Unusable) != want {
			t.Errorf("answer %d: found %s, unusable %v", i, got, found.Unusable)
		}
	}
}

// TestSentinelChangeMeanwhile announces a change while two of three Sentinels hang: they are asked again.
func TestSentinelChangeMeanwhile(t *testing.T) {
	t.Parallel()
	a, b := startFakeSentinel(t, serverA), startFakeSentinel(t, serverA)
	s := sentinelsAt(a, b)
	b.answer = func(words []string) (string, bool) { // with mu held
		if words[1] != "master" {
			return "", true
		}
		b.answer = nil
		s.changed <- struct{}{}
		return "", true
	}
	if got := summary(s.Find(t.Context())); got != "primary "+serverA {
		t.Errorf("found %s", got)
	}
	if n := b.commands("SENTINEL master"); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

// TestSentinelLinkTTL holds that a replica whose link is down is asked about soon again.
func TestSentinelLinkTTL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		replica fakeReplica
		soon    bool
	}{
		{fakeReplica{serverB, "slave", "ok"}, false}, {fakeReplica{serverB, "slave", "err"}, true},
		{fakeReplica{serverB, "slave,s_down", "err"}, false},
	} {
		s := sentinelsAt(startFakeSentinel(t, serverA, tt.replica))
		found, err := s.Find(t.Context())
		must(t, err)
		if soon := found.TTL == linkTTL; soon != tt.soon || found.Asked != 1 {
			t.Errorf("%v: TTL %v, %d questions", tt.replica, found.TTL, found.Asked)
		}
	}
}

// TestSentinelRefusals has Sentinels that refuse, each in its words.
func TestSentinelRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		raw, want string
		kind      error
	}{
		{"-NOAUTH Authentication required.\r\n", "the login is refused: the Sentinel wants a login: needs password_file", ErrLogin},
		{"-NOPERM this user has no permissions\r\n", "the login is refused: the user may not run SENTINEL and SUBSCRIBE", ErrLogin},
		{"-ERR unknown command 'SENTINEL', with args beginning with: 'get-master-addr-by-name'\r\n",
			"not a Sentinel: it does not know the command SENTINEL, as an ordinary Redis server", ErrNoSentinel},
		{"-DENIED Redis is running in protected mode\r\n", "it refused: protected mode: it needs a password, or bind",
			ErrUnwilling},
		{"-ERR max number of clients reached\r\n", `it refused: "ERR max number of clients reached"`, ErrUnwilling},
		{"-ERR \x1b[31m" + strings.Repeat("x", 200) + "\r\n", `it refused: "ERR \x1b[31m` + strings.Repeat("x", 91) + `"`,
			ErrUnwilling},
		{"HTTP/1.1 400 Bad Request\r\n", "not a Sentinel: not the protocol of Redis: it begins with 'H'", ErrNoSentinel},
		{"\x15\x03\x01\x00\x02\x02\x46", "no TLS connection: the server speaks TLS: needs tls = true", ErrTLS},
		{"*-1\r\n", `no such master: it watches "other"`, ErrNoSuchMaster},
		{":5\r\n", "no usable answer: replies of another form", ErrBadAnswer},
		{"*2147483647\r\n", "no answer: timed out", ErrNoAnswer},
		{"$2147483647\r\n", "not a Sentinel: not the protocol of Redis: more than 1048576 bytes", ErrNoSentinel},
	} {
		f := startFakeSentinel(t, serverA)
		f.answer = func(words []string) (string, bool) {
			switch {
			case words[1] == "masters":
				return "*1\r\n" + list("name", "other"), true
			case words[1] == "get-master-addr-by-name" || tt.raw[0] == '-':
				return tt.raw, true
			case words[1] == "master" && strings.HasPrefix(tt.raw, "*-1"):
				return "-ERR No such master with that name\r\n", true
			}
			return "", false
		}
		s := sentinelsAt(f)
		_, err := s.Find(t.Context())
		if want := `ask Sentinels for "mymaster": ` + f.address + ": " + tt.want; err == nil || err.Error() != want ||
			!errors.Is(err, tt.kind) {
			t.Errorf("%.40q: found\n%v, want\n%s", tt.raw, err, want)
		}
	}
}
