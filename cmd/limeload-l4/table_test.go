package main

import (
	"bytes"
	"testing"
)

func TestTable(t *testing.T) {
	full := newTable("name", ">count", "reason")
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
		{40, "name           count  reason\n" +
			"b1                 7  connect: connec...\n" +
			"a-longer-name   1234  -\n"},
		{3, "name      count  reason\n" +
			"b1            7  conne...\n" +
			"a-lon...   1234  -\n"},
	} {
		var out bytes.Buffer
		if err := full.print(&out, test.width); err != nil || out.String() != test.want {
			t.Errorf("width %d: %v\n%swant\n%s", test.width, err, out.String(), test.want)
		}
	}
}

// TestTableCutsWordsFirst: of columns of the same width the last one is cut first, since it holds text.
func TestTableCutsWordsFirst(t *testing.T) {
	twins := newTable("name", "reason")
	twins.add("a-long-name", "some reason")
	var out bytes.Buffer
	if err := twins.print(&out, 23); err != nil {
		t.Fatal(err)
	}
	if want := "name         reason\na-long-name  some re...\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// TestTableIsClean: only printable characters of a cell reach the terminal.
func TestTableIsClean(t *testing.T) {
	hostile := newTable("reason")
	hostile.add("\x1b[2Jgone\r\n\u009b31m\u202eevil\xff é \\ \"x\"")
	var out bytes.Buffer
	if err := hostile.print(&out, 0); err != nil {
		t.Fatal(err)
	}
	if want := "reason\n" + `\x1b[2Jgone\r\n\u009b31m\u202eevil\xff é \ "x"` + "\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
