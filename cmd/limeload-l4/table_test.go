package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"pgregory.net/rapid"
)

// columnsOf makes columns of names; ">" before a name aligns the column to the right, "=" says that it is text.
func columnsOf(names ...string) (columns []column) {
	for _, name := range names {
		c := column{name: strings.TrimLeft(name, ">=")}
		c.right, c.text = strings.HasPrefix(name, ">"), strings.HasPrefix(name, "=")
		columns = append(columns, c)
	}
	return columns
}

func printed(t interface{ Fatal(...any) }, table *table, s screen) string {
	var out bytes.Buffer
	if err := table.print(&out, s); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestTable: text is wrapped where lines would be too long; nothing is cut.
func TestTable(t *testing.T) {
	full := newTable(columnsOf("name", ">count", "=reason")...)
	full.add("b1", "7", "connect: connection refused, for the third time in a row")
	full.add("a-longer-name", "1234", "")
	for _, test := range []struct {
		width int
		want  string
	}{
		{0, "name           count  reason\n" +
			"b1                 7  connect: connection refused, for the third time in a row\n" +
			"a-longer-name   1234  -\n"},
		{200, "name           count  reason\n" +
			"b1                 7  connect: connection refused, for the third time in a row\n" +
			"a-longer-name   1234  -\n"},
		{50, "name           count  reason\n" +
			"b1                 7  connect: connection refused,\n" +
			"                      for the third time in a row\n" +
			"a-longer-name   1234  -\n"},
		{30, "name           count\n" +
			"b1                 7\n" +
			"    reason: connect:\n" +
			"      connection refused, for\n" +
			"      the third time in a row\n" +
			"a-longer-name   1234\n"},
	} {
		if got := printed(t, full, screen{width: test.width}); got != test.want {
			t.Errorf("width %d:\n%swant\n%s", test.width, got, test.want)
		}
	}
}

// TestTableLeavesOut: columns that say nothing go first, then those of the highest rank, and only as many as must.
func TestTableLeavesOut(t *testing.T) {
	some := newTable(column{name: "name"}, column{name: "mode", usual: "ready"},
		column{name: "weight", right: true, rank: 2},
		column{name: "sessions", right: true, rank: 1}, column{name: "verdict"})
	some.add("b1", "ready", "1", "12", "healthy")
	some.add("b2", "", "10", "0", "unhealthy")
	for _, test := range []struct {
		width  int
		header string
	}{
		{80, "name  mode   weight  sessions  verdict"},
		{38, "name  weight  sessions  verdict"},
		{30, "name  sessions  verdict"}, // and a line that says what is missing
		{22, "name  verdict"},
		{10, "name"}, // the verdict stands below
	} {
		got := printed(t, some, screen{width: test.width})
		if header, _, _ := strings.Cut(got, "\n"); header != test.header {
			t.Errorf("width %d: header %q, want %q", test.width, header, test.header)
		}
		for _, word := range []string{"b1", "b2", "unhealthy"} {
			if !strings.Contains(got, word) {
				t.Errorf("width %d: %s is missing:\n%s", test.width, word, got)
			}
		}
	}
	if got := printed(t, some, screen{width: 30}); !strings.HasSuffix(got, "\n--wide shows more: weight\n") {
		t.Errorf("it does not say what is missing:\n%s", got)
	}
	some.rows[1][1] = "drain" // now the mode says something
	if got := printed(t, some, screen{width: 30}); !strings.HasPrefix(got, "name  mode   verdict\n") {
		t.Errorf("the mode is left out:\n%s", got)
	}
}

// TestTableGroups: where space is short, long values of the first column become headings.
func TestTableGroups(t *testing.T) {
	pools := newTable(column{name: "pool", group: true}, column{name: "backend"}, column{name: "verdict", tint: stateTint})
	pools.add("postgres-primary-europe", "db-1", "healthy")
	pools.add("postgres-primary-europe", "db-2", "unhealthy")
	pools.add("redis", "db-1", "unknown")
	want := "  backend  verdict\n" +
		"pool postgres-primary-europe\n" +
		"  db-1     healthy\n" +
		"  db-2     unhealthy\n" +
		"pool redis\n" +
		"  db-1     unknown\n"
	if got := printed(t, pools, screen{width: 40}); got != want {
		t.Errorf("\n%swant\n%s", got, want)
	}
	coloured := strings.NewReplacer("healthy", "\x1b[32mhealthy\x1b[0m", "unhealthy", "\x1b[31munhealthy\x1b[0m",
		"unknown", "\x1b[33munknown\x1b[0m").Replace(want)
	coloured = strings.ReplaceAll(coloured, "un\x1b[32mhealthy", "\x1b[31munhealthy")
	if got := printed(t, pools, screen{width: 40, colours: true}); got != coloured {
		t.Errorf("in colours\n%q\nwant\n%q", got, coloured)
	}
}

// TestTableIsClean: only printable characters of a cell reach the terminal.
func TestTableIsClean(t *testing.T) {
	hostile := newTable(column{name: "reason"})
	hostile.add("\x1b[2Jgone\r\n\u009b31m\u202eevil\xff é \\ \"x\"")
	want := "reason\n" + `\x1b[2Jgone\r\n\u009b31m\u202eevil\xff é \ "x"` + "\n"
	if got := printed(t, hostile, screen{}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTableFits: whatever a table holds, no line is wider than the screen, and columns without a rank are all there,
// each cell with every character.
func TestTableFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var columns []column
		for range rapid.IntRange(1, 7).Draw(t, "columns") {
			columns = append(columns, column{
				name:  rapid.StringMatching(`[a-z]{1,12}`).Draw(t, "name"),
				right: rapid.Bool().Draw(t, "right"), text: rapid.Bool().Draw(t, "text"),
				group: rapid.Bool().Draw(t, "group"), rank: rapid.IntRange(0, 3).Draw(t, "rank"),
			})
		}
		some := newTable(columns...)
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			var cells []string
			for range columns {
				cells = append(cells, rapid.StringMatching(`([a-zé世.:-]{1,70} ?){0,6}`).Draw(t, "cell"))
			}
			some.add(cells...)
		}
		width := rapid.IntRange(leastWidth, 120).Draw(t, "width")
		got := printed(t, some, screen{width: width, colours: rapid.Bool().Draw(t, "colours")})
		for line := range strings.Lines(got) {
			if n := ansi.StringWidth(strings.TrimSuffix(line, "\n")); n > width {
				t.Fatalf("a line is %d wide on a screen of %d:\n%s", n, width, got)
			}
		}
		letters := func(text string) (n int) { return len(strings.Join(strings.Fields(ansi.Strip(text)), "")) }
		all := 0
		for _, row := range some.rows {
			for i, cell := range row {
				if columns[i].rank == 0 && cell != "-" {
					all += letters(cell)
				}
			}
		}
		if some.layout(width).headed {
			return // a heading stands for several cells
		}
		if letters(got) < all {
			t.Fatalf("%d of %d characters are shown:\n%s", letters(got), all, got)
		}
	})
}

func TestWrapped(t *testing.T) {
	for _, test := range []struct {
		text          string
		width, indent int
		want          string
	}{
		{"one two three", 0, 0, "one two three"},
		{"one two three", 8, 0, "one two|three"},
		{"one two three", 8, 2, "one two|  three"},
		{"  one two", 7, 4, "  one|two"}, // an indent of half the width helps nobody
		{"abcdefghij", 4, 0, "abcd|efgh|ij"},
		{"a bcdefghij", 4, 0, "a|bcde|fghi|j"},
		{"世世世", 4, 0, "世世|世"},
	} {
		if got := strings.Join(wrapped(test.text, test.width, test.indent), "|"); got != test.want {
			t.Errorf("%q in %d: %q, want %q", test.text, test.width, got, test.want)
		}
	}
}
