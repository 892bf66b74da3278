package l4

import (
	"bytes"
	"os"
	"testing"
)

// TestDropsAreExplained holds that the pages on reasons and on UDP have every drop.
func TestDropsAreExplained(t *testing.T) {
	for _, file := range []string{"../docs/reasons.md", "../docs/udp.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range Drops() {
			if d.String() == "" || !bytes.Contains(text, []byte("`"+d.String()+"`")) {
				t.Errorf("%s does not explain the drop %q", file, d)
			}
		}
	}
}
