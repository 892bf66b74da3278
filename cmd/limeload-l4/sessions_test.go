package main

import (
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// TestSessionsVia holds that the list says by whose connections clients have come, if a proxy has named any.
func TestSessionsVia(t *testing.T) {
	list := fixtureSessions()
	for _, via := range []string{"", "10.0.0.2:50000"} {
		list.Sessions[0].Via = via
		var out strings.Builder
		if err := printSessions(&out, list, screen{}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		if got := strings.Contains(lines[0], "  via "); got != (via != "") {
			t.Errorf("via %q: %s", via, lines[0])
		}
		first, second := strings.Fields(lines[1]), strings.Fields(lines[2])
		if via != "" && (first[2] != "192.0.2.7:51234" || first[3] != via || second[3] != "-" || second[4] != "redis") {
			t.Errorf("%s", out.String())
		}
	}
	var none strings.Builder
	if err := printSessions(&none, admin.SessionList{}, screen{}); err != nil || strings.Contains(none.String(), "via") {
		t.Errorf("%q, error %v", none.String(), err)
	}
}
