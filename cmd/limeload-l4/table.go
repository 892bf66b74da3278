package main

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// minCut is the least width of a column that was cut to make the table fit.
const minCut = 8

// A table has rows below a header. Its cells are cleaned when they are added, so that nothing in them can control the
// terminal. Its zero value is of no use, see newTable.
type table struct {
	header []string
	rows   [][]string
	right  []bool // by column: aligned to the right, for numbers
}

// newTable makes a table with these columns; ">" before a name aligns the column to the right.
func newTable(columns ...string) *table {
	t := &table{right: make([]bool, len(columns))}
	for i, name := range columns {
		name, t.right[i] = strings.CutPrefix(name, ">")
		t.header = append(t.header, name)
	}
	return t
}

// add adds a row; an empty cell is shown as "-".
func (t *table) add(cells ...string) {
	row := make([]string, len(t.header))
	for i := range row {
		row[i] = "-"
		if i < len(cells) && cells[i] != "" {
			row[i] = clean(cells[i])
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table. A positive width is that of the terminal: the widest columns are cut until the lines fit, or
// cannot be cut further.
func (t *table) print(w io.Writer, width int) error {
	widths := t.widths()
	if width > 0 {
		fit(widths, width)
	}
	var b strings.Builder
	for _, row := range slices.Concat([][]string{t.header}, t.rows) {
		var line strings.Builder
		for i, cell := range row {
			cell = cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if t.right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) widths() []int {
	widths := make([]int, len(t.header))
	for _, row := range slices.Concat([][]string{t.header}, t.rows) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// fit reduces the widest columns until all fit into width, or none is wider than minCut.
func fit(widths []int, width int) {
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := 0
		for i, w := range widths {
			if w >= widths[widest] { // of equal ones the last, where the text is
				widest = i
			}
		}
		if widths[widest] <= minCut {
			return
		}
		widths[widest]--
	}
}

// cut shortens a text to n characters; n is at least 3.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-3]) + "..."
}
