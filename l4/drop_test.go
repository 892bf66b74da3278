package l4_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/limeload/limeload-l4/l4"
)

// TestDropsAreExplained holds that the pages on reasons and on UDP have every drop.
func TestDropsAreExplained(t *testing.T) {
	for _, file := range []string{"../docs/reasons.md", "../docs/udp.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range l4.Drops() {
			if d.String() == "" || !bytes.Contains(text, []byte("`"+d.String()+"`")) {
				t.Errorf("%s does not explain the drop %q", file, d)
			}
		}
	}
}
