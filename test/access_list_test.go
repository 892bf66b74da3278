package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// expectAdmitted fails the test unless each client is served, or is reset: 1 and 0.
func expectAdmitted(t testing.TB, at string, clients map[string]int) {
	t.Helper()
	for from, want := range clients {
		expectVisits(t, from, at, "", 1, want, isReset)
	}
}

// awaitAdmitted waits until a client is served, or is not.
func awaitAdmitted(t testing.TB, at, from string, admitted bool) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s is served: %t", from, admitted), func() error {
		c, how := visit(t, from, at, "")
		if c != nil {
			c.Close()
		}
		if (how == isServed) != admitted {
			return fmt.Errorf("it is %s", how)
		}
		return nil
	})
}

// TestAccessList holds that of the prefixes that contain a client the longest decides, that whom an allow list does not
// name is denied, and that a reload changes the lists for new clients and not for those that are in.
func TestAccessList(t *testing.T) {
	t.Parallel()
	w := world{Listen: harness.FreeAddress(t), Backends: []string{greet(t)}}
	config := func(access string) string {
		w.Listener = []string{"access = { " + access + " }"}
		return w.config(t)
	}
	b := harness.StartBalancer(t, config(
		`allow = ["127.0.0.0/8", "127.0.2.7"], deny = ["127.0.2.0/24", "127.0.2.128/32"]`))
	expectAdmitted(t, w.Listen, map[string]int{
		"127.0.0.1": 1, "127.0.1.255": 1, "127.0.2.0": 0, "127.0.2.7": 1, "127.0.2.8": 0, "127.0.2.128": 0, "127.0.3.1": 1,
	})
	in, how := visit(t, "127.0.2.7", w.Listen, "")
	if how != isServed {
		t.Fatalf("an allowed client is %s", how)
	}
	measured(t, b, map[string]float64{refusedAs("denied"): 3})
	b.Reload(t, config(`allow = ["127.0.4.0/24"]`))
	expectAdmitted(t, w.Listen, map[string]int{"127.0.0.1": 0, "127.0.2.7": 0, "127.0.4.9": 1})
	check(t, harness.PingPong(in, 1, 10))
	b.Reload(t, config(`deny = ["127.0.4.0/24"]`))
	expectAdmitted(t, w.Listen, map[string]int{"127.0.0.1": 1, "127.0.2.7": 1, "127.0.4.9": 0})
}

// TestAccessListUDP holds that datagrams of denied clients are dropped, those of DNS questions included.
func TestAccessListUDP(t *testing.T) {
	t.Parallel()
	for _, lines := range [][]string{nil, {`profile = "dns"`}, {`profile = "dns"`, "cache = {}"}} {
		backend := harness.ServeUDP(t, harness.EchoDatagrams)
		b := world{Backends: []string{backend.Address()},
			Listener: append([]string{`access = { deny = ["127.0.2.0/24"] }`}, lines...)}.startUDP(t)
		const question = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x02lb\x04test\x00\x00\x01\x00\x01"
		for i := range 3 {
			check(t, harness.SendAll(harness.DialUDPFrom(t, fmt.Sprintf("127.0.2.%d", i+1), b.Address(t, "main")), question))
			awaitDrops(t, b, "denied", uint64(i+1))
		}
		if n := backend.Received(); n != 0 {
			t.Errorf("%v: %d datagrams of denied clients have come to the backend", lines, n)
		}
		if len(lines) == 0 {
			ask(t, harness.DialUDPFrom(t, "127.0.3.1", b.Address(t, "main")), question)
		}
	}
}

// TestAccessFiles changes files of prefixes in the ways that people and Kubernetes do, and holds that new clients are
// judged by the new lists; and that a file with a mistake changes nothing, and is reported with its line.
func TestAccessFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		next := filepath.Join(dir, ".next")
		check(t, os.WriteFile(next, []byte(text), 0o600))
		check(t, os.Rename(next, filepath.Join(dir, name)))
	}
	write("deny", "# who is not welcome\n127.0.2.0/24\n\n127.0.3.1 # a single one\n")
	for _, version := range []string{"one", "two"} {
		check(t, os.Mkdir(filepath.Join(dir, version), 0o700))
	}
	check(t, os.WriteFile(filepath.Join(dir, "one", "allow"), []byte("127.0.0.0/16\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "two", "allow"), []byte("127.0.0.0/16\n127.9.0.0/16\n"), 0o600))
	point := func(version string) {
		t.Helper()
		check(t, os.Symlink(version, filepath.Join(dir, "data.next")))
		check(t, os.Rename(filepath.Join(dir, "data.next"), filepath.Join(dir, "data")))
	}
	point("one")
	b := world{Backends: []string{greet(t)}, Listener: []string{fmt.Sprintf("access = { allow_file = %q, deny_file = %q }",
		filepath.Join(dir, "data", "allow"), filepath.Join(dir, "deny"))}}.start(t)
	at := b.Address(t, "main")
	expectAdmitted(t, at, map[string]int{"127.0.0.1": 1, "127.0.2.1": 0, "127.0.3.1": 0, "127.0.3.2": 1, "127.9.0.1": 0})

	write("deny", "127.0.3.2\n") // by rename
	awaitAdmitted(t, at, "127.0.2.1", true)
	expectAdmitted(t, at, map[string]int{"127.0.0.1": 1, "127.0.3.1": 1, "127.0.3.2": 0, "127.9.0.1": 0})
	point("two") // by changing a symbolic link
	awaitAdmitted(t, at, "127.9.0.1", true)
	expectAdmitted(t, at, map[string]int{"127.0.3.2": 0, "127.10.0.1": 0})

	write("deny", "127.0.0.0/8\n127.0.5.1\n127.0.6.999\n") // the last one is a mistake
	bad := b.WaitLine(t, "the file cannot be used", func(l harness.Line) bool {
		return l.Level == "error" && l.Listener == "main" && strings.Contains(l.Err, "127.0.6.999")
	})
	if want := filepath.Join(dir, "deny") + ":3: "; !strings.Contains(bad.Err, want) {
		t.Errorf("want %q in %s", want, bad.Text)
	}
	awaitMetric(t, b, "limeload_access_reload_failure", 1)
	expectAdmitted(t, at, map[string]int{"127.0.0.1": 1, "127.0.5.1": 1, "127.0.3.2": 0})
	check(t, os.Remove(filepath.Join(dir, "deny")))
	b.WaitLine(t, "the file is gone", func(l harness.Line) bool {
		return l.Level == "error" && l.Listener == "main" && strings.Contains(l.Err, "no such file")
	})
	expectAdmitted(t, at, map[string]int{"127.0.0.1": 1, "127.0.3.2": 0})

	write("deny", "127.0.5.1\n")
	awaitAdmitted(t, at, "127.0.5.1", false)
	expectAdmitted(t, at, map[string]int{"127.0.0.1": 1, "127.0.3.2": 1})
	awaitMetric(t, b, "limeload_access_reload_failure", 0)
}

// TestAccessMistakes holds that the mistakes in a file of prefixes stop a start and a reload, and have their lines.
func TestAccessMistakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "deny")
	text := strings.Repeat("192.0.2.1\n", 99_999) + "192.0.2.1/24\n" + strings.Repeat("192.0.2.2\n", 100_000)
	check(t, os.WriteFile(file, []byte(text), 0o600))
	w := world{Listen: harness.FreeAddress(t), Backends: []string{greet(t)}}
	b := w.start(t)
	w.Listener = []string{fmt.Sprintf("access = { deny_file = %q }", file)}
	b.Configure(t, w.config(t))
	for _, args := range [][]string{{"check", "--config", b.File()}, {"reload"}} {
		stdout, stderr, code := b.Command(t, args...)
		if want := file + ":100000: "; code == 0 || !strings.Contains(stdout+stderr, want) ||
			!strings.Contains(stdout+stderr, "192.0.2.0/24") {
			t.Errorf("%v ends with %d, want %q and what to write:\n%s%s", args, code, want, stdout, stderr)
		}
	}
	expectAdmitted(t, w.Listen, map[string]int{"127.0.0.1": 1})
}

// TestAccessRulesForClients denies and allows clients while the balancer runs. The rules stand above the configuration's lists,
// end when their time is over, and survive a restart.
func TestAccessRulesForClients(t *testing.T) {
	t.Parallel()
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{greet(t)},
		Listener: []string{`access = { deny = ["127.0.7.0/24"] }`},
		Global:   []string{fmt.Sprintf("state_file = %q", filepath.Join(t.TempDir(), "state.json"))},
	}
	other := harness.FreeAddress(t)
	config := w.config(t) + fmt.Sprintf("[listener.other]\naddress = %q\npool = 'all'\n", other)
	b := harness.StartBalancer(t, config)
	command := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := b.Command(t, append([]string{"access"}, args...)...)
		if code != 0 {
			t.Fatalf("access %v ends with %d: %s", args, code, stderr)
		}
		return stdout
	}
	in, _ := visit(t, "127.0.9.1", w.Listen, "")
	command("deny", "127.0.9.0/24", "--listener", "main", "--for", "1h")
	command("allow", "127.0.7.7")
	command("deny", "127.0.8.0/24", "--for", "3s")
	added := time.Now()
	expectAdmitted(t, w.Listen, map[string]int{
		"127.0.9.1": 0, "127.0.9.255": 0, "127.0.10.1": 1, "127.0.7.7": 1, "127.0.7.8": 0,
	})
	expectAdmitted(t, other, map[string]int{"127.0.9.1": 1, "127.0.7.8": 1})
	check(t, harness.PingPong(in, 1, 10)) // who is in stays in
	if c, how := visit(t, "127.0.8.1", w.Listen, ""); c != nil && time.Since(added) < 2*time.Second {
		t.Errorf("a client that is denied for a while is %s", how)
	}
	awaitAdmitted(t, w.Listen, "127.0.8.1", true)
	if list := command("list"); !strings.Contains(list, "127.0.9.0/24") || !strings.Contains(list, "127.0.7.7") ||
		strings.Contains(list, "127.0.8.0/24") {
		t.Errorf("the rules are\n%s", list)
	}

	check(t, in.Close())
	b.Signal(t, os.Interrupt)
	endsWithZero(t, b)
	b = harness.StartBalancer(t, config)
	expectAdmitted(t, w.Listen, map[string]int{"127.0.9.1": 0, "127.0.7.7": 1, "127.0.7.8": 0, "127.0.8.1": 1})
	expectAdmitted(t, other, map[string]int{"127.0.9.1": 1})
	command("remove", "127.0.9.0/24", "--listener", "main")
	expectAdmitted(t, w.Listen, map[string]int{"127.0.9.1": 1})
}
