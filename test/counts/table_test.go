package counts

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// page has the table of all counts, between its marks.
const page = "../../docs/performance.md"

const (
	tableBegin = "<!-- calls -->\n"
	tableEnd   = "<!-- end of calls -->\n"
)

// versions returns the versions of the programs that limeload-l4 is compared with.
func versions(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, program := range []string{haproxy, nginx} {
		stdout, stderr, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, program), Args: []string{"-v"}})
		found := regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(stdout + stderr)
		if found == "" {
			t.Fatalf("%s -v tells no version: %s%s", program, stdout, stderr)
		}
		all[program] = found
	}
	return all
}

// table returns the part of the page that has the counts.
func (b book) table() string {
	var s strings.Builder
	fmt.Fprintf(&s, tableHead, b.Versions[haproxy], b.Versions[nginx])
	for _, wk := range works() {
		costs := b.Works[wk.name]
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s |\n", wk.title, cell(costs, limeload), cell(costs, haproxy),
			cell(costs, nginx), perUnit(costs[limeload].Mallocs))
	}
	return s.String()
}

const tableHead = "## System calls per request and per connection\n\n" +
	"What the built binary does for one unit of work, counted by strace from outside, with one loop, thread or worker. " +
	"The units are done one after the other, and each step only when the balancer sleeps again. So nothing is batched, " +
	"and each event needs a wait of its own. Under load waits are shared (0.04 for each request on 64 busy " +
	"connections); the other calls stay the same. A wait counts if it brings an event. Calls of the memory allocator, " +
	"of timers and of the scheduler (futex) do not count. Objects are allocations on limeload-l4's heap. " +
	"One setsockopt of each connection gives its backend's side Reno, since this is loopback and the system's algorithm " +
	"is BBR; elsewhere there is none.\n\n" +
	"HAProxy is %s and nginx %s of Debian. Their configurations, and what exactly a unit is, are in `test/counts`. " +
	"A dash: the program does not do this, or not like this. `make bench-check` counts limeload-l4's column anew and " +
	"fails if a number has grown; `" + howToUpdate + "` writes the table.\n\n" +
	"| for | limeload-l4 | HAProxy | nginx | objects |\n|---|---|---|---|---|\n"

// cell returns what one program costs, and the calls that this consists of, the most frequent ones first.
func cell(costs map[string]cost, program string) string {
	c, has := costs[program]
	if !has {
		return "-"
	}
	names := slices.SortedFunc(maps.Keys(c.Calls), func(a, b string) int {
		if c.Calls[a] != c.Calls[b] {
			return int(100*c.Calls[b]) - int(100*c.Calls[a])
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		if n := perUnit(c.Calls[name]); n != "1" {
			names[i] = n + " " + name
		}
	}
	return fmt.Sprintf("**%s**: %s", perUnit(c.total()), strings.Join(names, ", "))
}

// writeTable writes the table into the page.
func (b book) writeTable(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile(page)
	check(t, err)
	before, after, found := around(string(text))
	if !found {
		t.Fatalf("%s lacks the lines %q and %q, which the table goes between", page, tableBegin, tableEnd)
	}
	check(t, os.WriteFile(page, []byte(before+b.table()+after), 0o644))
}

// around returns what stands before and after the table, with the marks.
func around(text string) (before, after string, found bool) {
	begin, end := strings.Index(text, tableBegin), strings.Index(text, tableEnd)
	if begin < 0 || end < begin {
		return "", "", false
	}
	return text[:begin+len(tableBegin)], text[end:], true
}

// TestTable holds that the page has the committed counts.
func TestTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	check(t, err)
	if before, after, found := around(string(text)); !found || before+readBook(t).table()+after != string(text) {
		t.Errorf("the table in %s is not that of %s: %s", page, countsFile, howToUpdate)
	}
}
