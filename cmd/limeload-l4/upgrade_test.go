package main

import (
	"bytes"
	"testing"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// TestPrintUpgrade holds what a person reads about an upgrade, also of a daemon that answers something hostile.
func TestPrintUpgrade(t *testing.T) {
	for _, tt := range []struct {
		done admin.Upgraded
		want string
	}{
		{admin.Upgraded{OldPID: 100, NewPID: 200, OldVersion: "1.2", NewVersion: "1.3", Sessions: 500, Flows: 200, Took: 0.41},
			"upgraded from 1.2 (pid 100) to 1.3 (pid 200) in 412ms: 500 sessions and 200 flows went over\n"},
		{admin.Upgraded{OldPID: 1, NewPID: 2, OldVersion: "1.2\x1b[2J", NewVersion: "1.3", Sessions: 1, Flows: 1, Took: 2,
			Left: map[string]int{"tls": 3, "busy": 1, "refused": 0}, Until: 30},
			"upgraded from 1.2\\x1b[2J (pid 1) to 1.3 (pid 2) in 2s: 1 session and 1 flow went over\n" +
				"4 stay with pid 1 (1 busy, 3 tls) until they end or can go over, for 30s at most\n"},
	} {
		var out bytes.Buffer
		if err := printUpgrade(&out, &tt.done, screen{}); err != nil || out.String() != tt.want {
			t.Errorf("it prints\n%swant\n%s%v", out.String(), tt.want, err)
		}
	}
}
