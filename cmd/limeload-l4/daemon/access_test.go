package daemon

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestCheckFilesOfPrefixes holds that mistakes in files of prefixes are found with their lines.
func TestCheckFilesOfPrefixes(t *testing.T) {
	f := newTLSFolder(t)
	f.write("good", []byte("10.0.0.0/8\n192.0.2.0/24 # one\n"))
	f.write("bad", []byte("10.0.0.0/8\n10.0.0.1/8\nx\n"))
	f.write("empty", []byte("# nobody\n"))
	file := f.path("lb.toml")
	for _, tt := range []struct{ access, err, warning string }{
		{`deny_file = "good"`, ``, ``},
		{`allow_file = "good"`, ``, ``},
		{`deny_file = "bad"`, f.path("bad") + `:2: found "10.0.0.1/8"; it has bits behind the first 8; needs "10.0.0.0/8" or ` +
			`"10.0.0.1"` + "\n" + f.path("bad") + `:3: found "x"; needs an address or a prefix, such as "10.0.0.7", ` +
			`"10.0.0.0/8" or "2001:db8::/32"`, ``},
		{`deny_file = "none"`, file + `:5: listener.a.access.deny_file: "` + f.path("none") + `": no such file or directory`, ``},
		{`deny_file = "."`, file + `:5: listener.a.access.deny_file: "` + f.dir + `": not a regular file`, ``},
		{`allow_file = "empty"`, ``, file + `:5: listener.a.access.allow_file: "` + f.path("empty") +
			`" has no prefix: every client is denied`},
		{`allow = ["::1"], allow_file = "empty"`, ``, ``},
		{`allow = ["10.0.0.0/8"], deny_file = "good"`, ``, file + `:5: listener.a.access.deny_file: 10.0.0.0/8 is both allowed ` +
			`and denied: it is denied`},
		{`allow = ["10.0.0.0/8", "192.0.2.0/24"], deny_file = "good"`, ``, file + `:5: listener.a.access.deny_file: 10.0.0.0/8 ` +
			`and 1 more prefixes are both allowed and denied: they are denied`},
	} {
		cfg, err := conf.Parse(file, fmt.Appendf(nil, "[admin]\naddress = ''\n[listener.a]\naddress = '127.0.0.1:1'\n"+
			"access = { %s }\npool = 'p'\n[pool.p]\nbackends = ['127.0.0.1:2']\n", tt.access))
		if err != nil {
			t.Fatal(err)
		}
		warnings, err := Check(t.Context(), cfg)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.err {
			t.Errorf("%s: got\n%s, want\n%s", tt.access, got, tt.err)
		}
		if got := strings.Join(warnings, "\n"); got != tt.warning {
			t.Errorf("%s: warnings\n%s, want\n%s", tt.access, got, tt.warning)
		}
		if _, err := New(Options{Config: cfg, Version: "test"}); tt.err != "" && (err == nil || err.Error() != tt.err) {
			t.Errorf("%s: a start says %v", tt.access, err)
		}
	}
}

// accessTables are tables of a listener with files of a folder, and of its pool.
func accessTables(f tlsFolder, access string) string {
	return fmt.Sprintf("[listener.gated]\naddress = %q\npool = \"web\"\naccess = { %s }\n", f.address, access)
}

// counts returns how many prefixes a listener allows and denies.
func (l *liveDaemon) counts(listener string) string {
	a := l.accessNow()[listener]
	if a == nil {
		return "none"
	}
	return fmt.Sprint(a.allowed, a.denied)
}

// accessFailing reports whether files of prefixes cannot be used now.
func (l *liveDaemon) accessFailing() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.accessReloads.failing
}

// keeps reports whether these lists are those of the data plane, as far as a listener is concerned.
func (l *liveDaemon) keeps(listener string, access accessLists) bool {
	cfg := l.config()
	for _, c := range l.server.Compare(l.buildPlan(cfg, l.poolsByName(), l.securedNow(), access)) {
		if c.Name == listener {
			return c.Fate == l4.Kept
		}
	}
	return false
}

// TestFollowsFilesOfPrefixes changes files in the ways of Kubernetes and of careful and careless programs, under a
// running daemon.
func TestFollowsFilesOfPrefixes(t *testing.T) {
	f := newTLSFolder(t)
	version := func(n int, text string) {
		t.Helper()
		folder := fmt.Sprintf("v%d", n)
		if err := os.Mkdir(f.path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
		f.write(folder+"/deny", []byte(text))
		if err := os.Symlink(folder, f.path("live.new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.path("live.new"), f.path("live")); err != nil {
			t.Fatal(err)
		}
	}
	version(1, "192.0.2.0/24\n")
	f.write("allow", []byte("10.0.0.0/8\n"))
	l := runDaemon(t, "",
		accessTables(f, fmt.Sprintf("allow_file = %q, deny_file = %q", f.path("allow"), f.path("live/deny"))))
	events, stop := l.events.subscribe()
	defer stop()
	shows := func(want string) {
		t.Helper()
		l.eventually(want, func() bool { return l.counts("gated") == want })
		if !l.keeps("gated", l.accessNow()) || l.keeps("gated", accessLists{"gated": {list: l4.NewAccessList(true)}}) {
			t.Error("the data plane has another list")
		}
	}
	shows("1 1")
	first := l.accessNow()["gated"]
	version(2, "192.0.2.0/24\n198.51.100.0/24\n") // the folder of the file is replaced
	shows("1 2")
	f.write("allow", []byte("10.0.0.0/8\n10.0.0.0/8\n::/0\n")) // by a rename
	shows("2 2")
	if err := os.WriteFile(f.path("live/deny"), []byte("192.0.2.1"), 0o600); err != nil { // in place
		t.Fatal(err)
	}
	shows("2 1")
	if first == l.accessNow()["gated"] || l.accessFailing() {
		t.Error("the list is the one of before, or a failure is reported")
	}
	if plan, err := l.Plan(t.Context(), nil); err != nil || !plan.Same {
		t.Errorf("a plan after that: error %v, %+v", err, plan)
	}
	now := l.accessNow()["gated"]
	if _, err := l.Reload(t.Context()); err != nil || l.accessNow()["gated"] != now {
		t.Errorf("a reload of what did not change: error %v, or another list", err)
	}

	text := bytes.Repeat([]byte("10.1.0.0/16\n"), 1_000_000)
	copy(text[500_000*12:], "10.1.0.1/16\n")
	f.write("live/deny", text)
	l.eventually("a failure", l.accessFailing)
	if l.accessNow()["gated"] != now {
		t.Error("a broken file is taken up")
	}
	if err := awaitEvent(t, events, "access_reload_failed").Reason; !strings.Contains(err, f.path("live/deny")+
		`:500001: found "10.1.0.1/16"; it has bits behind the first 16`) || strings.Contains(err, "\n") {
		t.Errorf("the event says %q", err)
	}
	families := scrape(t, l.metrics, textForm)
	if families["limeload_access_reload_failure"].GetMetric()[0].GetGauge().GetValue() != 1 ||
		families["limeload_access_reloads_total"].GetMetric()[0].GetCounter().GetValue() != 3 {
		t.Error("the metrics do not say so")
	}
	if _, err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), ":500001: ") {
		t.Errorf("a reload with a broken file: %v", err)
	}
	if err := os.Remove(f.path("allow")); err != nil {
		t.Fatal(err)
	}
	f.write("live/deny", []byte("192.0.2.1")) // as before, while the other file is missing
	time.Sleep(3 * settleTime)
	if l.accessNow()["gated"] != now || !l.accessFailing() {
		t.Error("a missing file is taken for an empty one, or it is no failure")
	}
	f.write("allow", []byte("::/0\n"))
	l.eventually("no failure", func() bool { return !l.accessFailing() })
	shows("1 1")
}

// TestAccessListKeepsSessions holds that another list is for new clients: sessions go on.
func TestAccessListKeepsSessions(t *testing.T) {
	f := newTLSFolder(t)
	f.write("deny", []byte("192.0.2.0/24\n"))
	l := runDaemon(t, "", accessTables(f, fmt.Sprintf("deny_file = %q", f.path("deny"))))
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	echoes := func(c net.Conn) bool {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		answer := make([]byte, 1)
		_, _ = c.Write([]byte{7})
		_, err := io.ReadFull(c, answer)
		return err == nil && answer[0] == 7
	}
	old := dial()
	if !echoes(old) {
		t.Fatal("no answer")
	}
	before := l.accessNow()["gated"]
	f.write("deny", []byte("127.0.0.0/8\n"))
	l.eventually("another list", func() bool { return l.accessNow()["gated"] != before })
	if !echoes(old) {
		t.Error("the session has ended")
	}
	if c, err := net.Dial("tcp", f.address); err == nil { // else the reset was there before the connect was over
		if echoes(c) {
			t.Error("a denied client has been served")
		}
		_ = c.Close()
	}
	f.write("deny", nil)
	l.eventually("no prefix", func() bool { return l.counts("gated") == "0 0" })
	if !echoes(dial()) || !echoes(old) {
		t.Error("no answer after that")
	}
}

// awaitEvent waits for an event of a kind.
func awaitEvent(t *testing.T, events <-chan admin.Event, kind string) admin.Event {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case e := <-events:
			if e.Kind == kind {
				return e
			}
		case <-limit:
			t.Fatalf("no event %s", kind)
		}
	}
}

// TestReloadOfAccess changes the configuration of access, with and without mistakes.
func TestReloadOfAccess(t *testing.T) {
	f := newTLSFolder(t)
	f.write("deny", []byte("192.0.2.0/24\n"))
	f.write("secret", []byte("hush\n"))
	file := fmt.Sprintf("deny_file = %q", f.path("deny"))
	l := runDaemon(t, "", accessTables(f, file)+
		fmt.Sprintf("[listener.same]\naddress = %q\npool = 'web'\naccess = { %s }\n", harness.FreeAddress(t), file))
	now := l.accessNow()
	if now["gated"] == nil || now["gated"] != now["same"] || now["web"] != nil {
		t.Errorf("listeners that say the same do not share a list: %v", now)
	}
	fate := func(p admin.Plan, name string) string {
		i := slices.IndexFunc(p.Listeners, func(c admin.ListenerChange) bool { return c.Name == name })
		return fmt.Sprint(p.Listeners[i].What, p.Listeners[i].Changes)
	}
	l.configure(accessTables(f, file+`, allow = ["10.0.0.0/8"]`))
	plan, err := l.Plan(t.Context(), nil)
	if want := `changed[{access.allow [] ["10.0.0.0/8"]}]`; err != nil || fate(plan, "gated") != want || plan.Same {
		t.Errorf("error %v, plan %+v", err, plan)
	}
	if l.counts("gated") != "0 1" {
		t.Error("a plan changes something")
	}
	if _, err := l.Reload(t.Context()); err != nil || l.counts("gated") != "1 1" || l.counts("same") != "none" {
		t.Errorf("after a reload: error %v, %s", err, l.counts("gated"))
	}
	for _, a := range []string{`deny = ["10.0.0.1/8"]`, `deny_file = "none"`} {
		l.configure(accessTables(f, a))
		if _, err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "listener.gated.access.deny") ||
			l.counts("gated") != "1 1" {
			t.Errorf("%s: error %v, %s", a, err, l.counts("gated"))
		}
	}
	// A configuration of a request must not read other files, nor one that is in use as something else.
	l.files.seen["admin.token_file"] = content{path: f.path("secret")}
	for _, path := range []string{"/etc/hostname", f.path("secret")} {
		plan, err = l.Plan(t.Context(), &admin.Configuration{Name: "other.toml", Text: fmt.Appendf(nil, "[listener.gated]\n"+
			"address = %q\npool = 'web'\naccess = { deny_file = %q }\n[pool.web]\nbackends = ['127.0.0.1:9']\n", f.address, path)})
		if err != nil || !slices.ContainsFunc(plan.Warnings, func(w string) bool {
			return strings.Contains(w, fmt.Sprintf("listener.gated.access.deny_file: %q is not read for a plan", path))
		}) {
			t.Errorf("error %v, warnings %q", err, plan.Warnings)
		}
	}
	l.configure("")
	if _, err := l.Reload(t.Context()); err != nil || len(l.accessNow()) != 0 {
		t.Errorf("error %v, lists %v", err, l.accessNow())
	}
}

// TestAccessOfBothHalves holds that both protocols of a listener have its list.
func TestAccessOfBothHalves(t *testing.T) {
	cfg, err := conf.Parse("lb.toml", []byte("[admin]\naddress = ''\n[listener.a]\naddress = ':1'\npool = 'p'\n"+
		"protocol = 'tcp+udp'\nprofile = 'dns'\ncache = {}\naccess = { deny = ['192.0.2.0/24'] }\n"+
		"limits = { rate = '5/s' }\n[pool.p]\nbackends = ['127.0.0.1:2']\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, cfg)
	plan := d.buildPlan(cfg, d.poolsByName(), d.secured, d.access)
	if len(plan.Listeners) != 2 {
		t.Fatalf("%d listeners", len(plan.Listeners))
	}
	for _, spec := range plan.Listeners {
		if spec.Access == nil || spec.Access != d.access["a"].list || spec.Limits.Rate.Burst != 5 {
			t.Errorf("%v has %v and %+v", spec.Protocol, spec.Access, spec.Limits)
		}
	}
}
