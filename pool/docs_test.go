package pool

import (
	"os"
	"strings"
	"testing"
)

// TestDocNamesObstacles holds the page on pools against the words of Explain.
func TestDocNamesObstacles(t *testing.T) {
	page, err := os.ReadFile("../docs/pools.md")
	if err != nil {
		t.Fatal(err)
	}
	for o := range InOtherZone + 1 {
		if !strings.Contains(string(page), "`"+o.String()+"`") {
			t.Errorf("docs/pools.md does not say what %s is", o)
		}
	}
}
