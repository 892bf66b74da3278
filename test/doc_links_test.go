package test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// headings returns the anchors of a page's headings, as GitHub makes them.
func headings(page string) (anchors []string) {
	fence, heading := regexp.MustCompile("(?ms)^```.*?^```"), regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		text := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(h[1]), "")
		anchors = append(anchors, strings.ReplaceAll(text, " ", "-"))
	}
	return anchors
}

// brokenLinks is which links between pages, by their paths in the repository, lead to no page or no heading.
func brokenLinks(pages map[string]string) (broken []string) {
	for name, page := range pages {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(page, -1) {
			file, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(file, ":") || file != "" && path.Ext(file) != ".md" {
				continue
			}
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if text, is := pages[target]; !is || anchor != "" && !slices.Contains(headings(text), anchor) {
				broken = append(broken, name+": "+link[1])
			}
		}
	}
	slices.Sort(broken)
	return broken
}

// TestDocLinks checks that every link between our pages leads to a page, and to a heading if it names one.
func TestDocLinks(t *testing.T) {
	t.Parallel()
	bad := map[string]string{
		"README.md": "[a](docs/a.md#one-two) [b](docs/b.md) [c](docs/a.md#three) [d](https://example.org/x.md)",
		"docs/a.md": "## One, two\n[e](#gone) [f](../README.md)",
	}
	want := []string{"README.md: docs/a.md#three", "README.md: docs/b.md", "docs/a.md: #gone"}
	if got := brokenLinks(bad); !slices.Equal(got, want) {
		t.Fatalf("the guard finds %q in the bad sample, want %q", got, want)
	}
	files, err := filepath.Glob("../docs/*.md")
	check(t, err)
	pages := make(map[string]string)
	for _, file := range append(files, "../README.md", "../CHANGELOG.md") {
		text, err := os.ReadFile(file)
		check(t, err)
		pages[strings.TrimPrefix(filepath.ToSlash(file), "../")] = string(text)
	}
	for _, link := range brokenLinks(pages) {
		t.Error(link)
	}
}
