package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestAccessRulesOutliveTheProcess: the next daemon has the rules, but not those whose time has passed. A rule for a
// listener that is gone is marked.
func TestAccessRulesOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	global := fmt.Sprintf("[global]\nstate_file = %q\n", path)
	d := testDaemon(t, parsed(t, global+"[listener.db]\naddress = \"127.0.0.1:7994\"\npool = \"web\"\n"))
	long, short := 3600.0, 1.0
	for _, r := range []admin.NewAccessRule{
		{Prefix: "192.0.2.0/24", Action: "deny", For: &long, Comment: "a \"quoted\" <b>"},
		{Prefix: "198.51.100.0/24", Action: "deny", For: &short},
		{Prefix: "2001:db8::/32", Action: "allow", Listener: "db"},
	} {
		if _, err := d.AddAccessRule(r); err != nil {
			t.Fatal(err)
		}
	}
	want := d.AccessRules()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	past := want[1].Until.Format(time.RFC3339Nano)
	if !strings.Contains(string(text), past) {
		t.Fatalf("%s is not in %s", past, text)
	}
	before := strings.Replace(string(text), past, "2020-01-01T00:00:00Z", 1)
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}

	var data ruleTaker
	again := testDaemon(t, parsed(t, global))
	again.rules.useServer(data.take)
	if given, _ := data.last(); given != "192.0.2.0/24@=false 2001:db8::/32@db=true" {
		t.Errorf("the data plane has %s", given)
	}
	got := again.AccessRules()
	if len(got) != 2 || got[0].Comment != want[0].Comment || !got[0].Until.Equal(*want[0].Until) ||
		!got[0].Added.Equal(want[0].Added) || got[0].Gone || !got[1].Gone || got[1].Until != nil ||
		got[1].Listener != "db" || got[1].Action != "allow" || again.loadFailure != nil {
		t.Errorf("the next daemon has %+v, want %+v; %v", got, want, again.loadFailure)
	}
	if _, err := again.RemoveAccessRule("2001:db8::/32", "db", admin.Origin{}); err != nil {
		t.Errorf("a rule for a listener that is gone: %v", err)
	}
}

// TestAccessRulesOfOlderFiles: a state file without rules is read, and the older version reads a file with rules: the
// number of the format is the same.
func TestAccessRulesOfOlderFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	old := `{"version":1,"pools":{"web":[{"what":"added","base":{"name":"b9","address":"127.0.0.1:9","weight":1,` +
		`"max_sessions":0,"tier":0,"zone":"","mode":"ready"}}]},"primaries":{}}`
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, parsed(t, fmt.Sprintf("[global]\nstate_file = %q\n", path)))
	if n := len(d.pools["web"].pool.Backends()); n != 2 || len(d.AccessRules()) != 0 || d.loadFailure != nil {
		t.Errorf("%d backends, %+v, %v", n, d.AccessRules(), d.loadFailure)
	}
	if _, err := d.AddAccessRule(deny("192.0.2.0/24", "")); err != nil {
		t.Fatal(err)
	}
	var older struct { // what the version before reads
		Version int
		Pools   map[string][]savedOverride
	}
	if err := d.state.load(&older); err != nil || older.Version != 1 || len(older.Pools["web"]) != 1 {
		t.Errorf("%+v, %v", older, err)
	}
}

// TestAccessRulesNotSaved: a rule that cannot be saved is in force, and the caller gets an error.
func TestAccessRulesNotSaved(t *testing.T) {
	d := testDaemon(t,
		parsed(t, fmt.Sprintf("[global]\nstate_file = %q\n", filepath.Join(t.TempDir(), "missing", "state.json"))))
	r, err := d.AddAccessRule(deny("192.0.2.0/24", ""))
	var unsaved *admin.NotSavedError
	if !errors.As(err, &unsaved) || r.Prefix != "192.0.2.0/24" || d.rules.len() != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := d.RemoveAccessRule("192.0.2.0/24", "", admin.Origin{}); !errors.As(err, &unsaved) || d.rules.len() != 0 {
		t.Error(err)
	}
}

// TestAccessRulesLive: in a running daemon a rule ends at its time, with an event, and leaves the state file. A reload
// that removes a listener keeps its rules, and marks them.
func TestAccessRulesLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	other := fmt.Sprintf("[listener.db]\naddress = %q\npool = \"web\"\n", harness.FreeAddress(t))
	d := runDaemon(t, fmt.Sprintf("state_file = %q", path), other)
	d.awaitState(serving)
	if _, err := d.AddAccessRule(deny("198.51.100.0/24", "db")); err != nil {
		t.Fatal(err)
	}
	second := 1.0
	events, stop := d.Events()
	defer stop()
	short := deny("192.0.2.0/24", "")
	short.For = &second
	added, err := d.AddAccessRule(short)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Kind != "access_rule_added" {
		t.Fatalf("the event is %+v", e)
	}
	if e := <-events; e.Kind != "access_rule_expired" || e.At.Before(*added.Until) {
		t.Errorf("the event is %+v", e)
	}
	harness.Eventually(t, "the rule is not in the state file any more", func() error {
		text, err := os.ReadFile(path)
		if err == nil && (strings.Contains(string(text), "192.0.2.0/24") ||
			!strings.Contains(string(text), "198.51.100.0/24")) {
			err = fmt.Errorf("it is %s", text)
		}
		return err
	})
	d.configure("")
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := d.AccessRules(); len(rules) != 1 || !rules[0].Gone || rules[0].Listener != "db" {
		t.Errorf("after the reload the rules are %+v", rules)
	}
	d.configure(other)
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := d.AccessRules(); len(rules) != 1 || rules[0].Gone {
		t.Errorf("with the listener again the rules are %+v", rules)
	}
}
