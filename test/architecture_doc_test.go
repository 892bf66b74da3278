package test

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"testing"
)

// missingFiles returns the Go files that a page names and that are not in the repository. Their paths begin at its root,
// or at the rooms of the data plane.
func missingFiles(repository fs.FS, page string) (missing []string) {
	for _, name := range regexp.MustCompile("`([a-z0-9_/-]+\\.go)`").FindAllStringSubmatch(page, -1) {
		_, err := fs.Stat(repository, name[1])
		if err != nil {
			_, err = fs.Stat(repository, "l4/internal/"+name[1])
		}
		if err != nil {
			missing = append(missing, name[1])
		}
	}
	return missing
}

// TestArchitectureFiles checks that every Go file which docs/architecture.md names is there.
func TestArchitectureFiles(t *testing.T) {
	t.Parallel()
	repository := os.DirFS("..")
	bad, want := "`gone.go`, `pool/pool.go` and `pool/gone_too.go`", []string{"gone.go", "pool/gone_too.go"}
	if got := missingFiles(repository, bad); !slices.Equal(got, want) {
		t.Fatalf("the guard finds %q in the bad sample, want %q", got, want)
	}
	page, err := os.ReadFile("../docs/architecture.md")
	check(t, err)
	for _, name := range missingFiles(repository, string(page)) {
		t.Errorf("docs/architecture.md names %s, which is not there", name)
	}
}
