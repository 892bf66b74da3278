package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/l4"
)

// reasonsPage is the one place where operators look up reasons and drops.
const reasonsPage = "../../docs/reasons.md"

// tableDifferences compares the first cells of a table, found by its heading row, with the names there are.
func tableDifferences(page, heading string, names []string) (differences []string) {
	_, table, _ := strings.Cut(page, "\n"+heading+"\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [^|]+ \\|$").FindAllStringSubmatch(table, -1) {
		if slices.Contains(rows, row[1]) {
			differences = append(differences, row[1]+" has two rows")
		}
		rows = append(rows, row[1])
	}
	for _, name := range names {
		if !slices.Contains(rows, name) {
			differences = append(differences, name+" has no row")
		}
	}
	for _, row := range rows {
		if !slices.Contains(names, row) {
			differences = append(differences, row+" is not in the code")
		}
	}
	return differences
}

// TestDocReasons compares the two tables of docs/reasons.md with the reasons and drops of package l4, both ways.
func TestDocReasons(t *testing.T) {
	const heading = "| drop | why |"
	bad := "\n" + heading + "\n|---|---|\n| `there` | |\n| `gone` | it is gone |\n| `twice` | a |\n| `twice` | a |\n" +
		"\n| `later` | another table |\n"
	want := []string{"twice has two rows", "there has no row", "later has no row", "gone is not in the code"}
	if got := tableDifferences(bad, heading, []string{"there", "twice", "later"}); !slices.Equal(got, want) {
		t.Fatalf("the guard finds %q in the bad sample, want %q", got, want)
	}
	page, err := os.ReadFile(reasonsPage)
	if err != nil {
		t.Fatal(err)
	}
	differences := append(
		tableDifferences(string(page), "| reason | who ended it, and how |", texts(l4.Reasons())),
		tableDifferences(string(page), "| drop | why the datagram was dropped |", texts(l4.Drops()))...,
	)
	for _, d := range differences {
		t.Error("docs/reasons.md: " + d)
	}
}

// texts returns the names of all values.
func texts[T fmt.Stringer](values []T) []string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.String()
	}
	return names
}
