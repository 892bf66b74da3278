package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// eventsOf returns the events of the log lines in a source file, and the lines that have none. An event that is a
// variable is returned as its name.
func eventsOf(source string) (events, without []string) {
	with := regexp.MustCompile(`Str\("event", ("?\w+"?)\)`)
	ends := regexp.MustCompile(`[.\t]Msg\(`)
	rest := source
	for {
		at := ends.FindStringIndex(rest)
		if at == nil {
			return events, without
		}
		i := at[0]
		statement := rest[strings.LastIndex(rest[:i], "\n\n")+1 : i] // the lines before it, up to an empty one
		all := with.FindAllStringSubmatch(statement, -1)
		if len(all) == 0 {
			line, _, _ := strings.Cut(rest[i:], "\n")
			without = append(without, line)
		} else {
			events = append(events, all[len(all)-1][1])
		}
		rest = rest[at[1]:]
	}
}

// variableEvents are the events of lines whose event is a variable, and that of the log's own line.
func variableEvents() []string {
	return []string{
		"checks_blind", "checks_not_blind", "access_rule_added", "access_rule_removed", "access_rule_expired",
		"log_lines_dropped",
	}
}

// TestLogEvents holds that every line of the log has an event, and that docs/logging.md explains each event and no
// others.
func TestLogEvents(t *testing.T) {
	events, without := eventsOf("x.Msg(\"a\")\n\nx.Str(\"event\", \"b\").Msg(\"c\")\nx.Msg(\"d\")\n")
	if len(events) != 1 || events[0] != `"b"` || len(without) != 2 {
		t.Fatalf("the guard finds the events %q in a bad sample, and %q without", events, without)
	}
	found := variableEvents()
	lines := 0
	for _, dir := range []string{"l4", "cmd", "pool", "healthcheck"} {
		err := filepath.WalkDir(filepath.Join("../../..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			events, without := eventsOf(string(text))
			for _, line := range without {
				t.Errorf("%s: no event: %s", path, line)
			}
			for _, e := range events {
				lines++
				if name := strings.Trim(e, `"`); name != e {
					found = append(found, name)
				} else if name != "event" && name != "kind" {
					t.Errorf("%s: the event is %s", path, e)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines < 90 {
		t.Errorf("the guard finds only %d lines", lines)
	}
	slices.Sort(found)
	found = slices.Compact(found)
	page, err := os.ReadFile("../../../docs/logging.md")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (?:trace|debug|info|warn|error)")
	for _, row := range rows.FindAllStringSubmatch(string(page), -1) {
		said = append(said, row[1])
	}
	slices.Sort(said)
	if fmt.Sprint(found) != fmt.Sprint(said) {
		for _, e := range found {
			if !slices.Contains(said, e) {
				t.Errorf("docs/logging.md lacks the event %s", e)
			}
		}
		for i, e := range said {
			if !slices.Contains(found, e) || i > 0 && said[i-1] == e {
				t.Errorf("docs/logging.md has the event %s, which no line has, or twice", e)
			}
		}
	}
}
