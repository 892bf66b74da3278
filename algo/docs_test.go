package algo

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestDocNamesAlgorithms holds the page on algorithms against the list of them: each has a section of its own, and no
// other is there.
func TestDocNamesAlgorithms(t *testing.T) {
	page, err := os.ReadFile("../docs/algorithms.md")
	if err != nil {
		t.Fatal(err)
	}
	var named, known []string
	for _, heading := range regexp.MustCompile("(?m)^### (.*)$").FindAllSubmatch(page, -1) {
		for _, name := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllSubmatch(heading[1], -1) {
			named = append(named, string(name[1]))
		}
	}
	for _, k := range Kinds() {
		known = append(known, k.Name)
	}
	slices.Sort(named)
	slices.Sort(known)
	if !slices.Equal(named, known) {
		t.Errorf("docs/algorithms.md describes %v, and there are %v", named, known)
	}
}
