package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// A sheet is a table of texts. Its zero value is an empty one.
type sheet struct {
	titles []string
	rows   [][]string
}

func (s *sheet) row(cells ...string) { s.rows = append(s.rows, cells) }

// text writes the sheet for a terminal, or nothing if it has no rows.
func (s sheet) text(b *strings.Builder) {
	if len(s.rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, cells := range append([][]string{s.titles}, s.rows...) {
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	tw.Flush() // into memory
	fmt.Fprintln(b)
}

// markdown returns the sheet as a table of Markdown.
func (s sheet) markdown() string {
	var b strings.Builder
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(&b, "| %s ", strings.ReplaceAll(c, "|", `\|`))
		}
		b.WriteString("|\n")
	}
	line(s.titles)
	b.WriteString(strings.Repeat("|---", len(s.titles)) + "|\n")
	for _, r := range s.rows {
		line(r)
	}
	return b.String()
}

// contenderTitle returns a contender's name for people.
func contenderTitle(name string) string {
	switch name {
	case "haproxy":
		return "HAProxy"
	case nameDirect:
		return "no balancer"
	case nameBefore:
		return "an earlier limeload-l4"
	}
	return name
}
