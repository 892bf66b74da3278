package l4_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/limeload/limeload-l4/l4"
)

// TestDropsAreExplained holds that the README has every drop, and the page on l4.UDP, too.
func TestDropsAreExplained(t *testing.T) {
	for _, file := range []string{"../README.md", "../docs/udp.md"} {
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
