package main

import (
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

const (
	// gap is between two columns.
	gap = 2
	// easyText is how narrow a column of text may become before other columns are left out for it: four or five words.
	easyText = 26
	// leastText is how narrow it may become after that.
	leastText = 16
	// longGroup is the width from which on a first column becomes headings when space is short.
	longGroup = 12
)

// A column describes one column of a table. Only name is required.
type column struct {
	name  string
	right bool                   // aligned to the right, for numbers
	text  bool                   // is wrapped between words where lines would be too long
	group bool                   // rows with the same value stand together, and may get a heading instead
	usual string                 // the value that says nothing; "-", which is an empty cell, is always another
	rank  int                    // 0: is never left out if it says anything; else the higher, the sooner
	tint  func(cell string) tint // nil: uncoloured
}

// A table has rows below a header. Its cells are cleaned when they are added, so that nothing in them can control the
// terminal. Its zero value is of no use, see newTable.
//
// Where a table is wider than the screen, columns that say nothing are left out first, then a first column of long
// names becomes headings, then the least important columns are left out, and then text is wrapped. If even that is not
// enough, the last columns continue below their row. So nothing is ever cut.
type table struct {
	columns []column
	rows    [][]string
	fold    bool // text continues below its row before columns are left out for it
}

// newTable makes a table with these columns.
func newTable(columns ...column) *table { return &table{columns: columns} }

// add adds a row; an empty cell is shown as "-".
func (t *table) add(cells ...string) {
	row := make([]string, len(t.columns))
	for i := range row {
		row[i] = "-"
		if i < len(cells) && cells[i] != "" {
			row[i] = clean(cells[i])
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table so that its lines fit into the screen, and then a line that names the columns that were left
// out though they say something.
func (t *table) print(w io.Writer, s screen) error {
	l := t.layout(s.width)
	var b strings.Builder
	for _, line := range l.head() {
		b.WriteString(line + "\n")
	}
	for _, line := range l.body(s) {
		b.WriteString(line.text + "\n")
	}
	if len(l.missing) > 0 {
		slices.Reverse(l.missing)
		for _, line := range wrapped("--wide shows more: "+strings.Join(l.missing, ", "), s.width, 2) {
			b.WriteString(s.paint(faint, line) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// A layout says which columns of a table stand where.
type layout struct {
	*table
	width   int   // of the screen; 0: no limit
	beside  []int // columns beside each other
	widths  []int // of each of them
	widest  []int // the width of each column's longest cell
	longest []int // and of its longest word, if it is text
	below   []int // columns that continue below their row
	headed  bool  // the first column of the table is shown as headings
	missing []string
}

// layout fits the table into a width; 0 is no limit.
func (t *table) layout(width int) *layout {
	l := &layout{table: t, width: width}
	l.measure()
	for i := range t.columns {
		l.beside = append(l.beside, i)
	}
	for !l.fits(easyText) && l.leaveOut(t.silent) {
	}
	if !l.fits(easyText) && len(l.beside) > 1 && t.columns[0].group && l.natural(0) >= longGroup && len(t.rows) > 0 {
		l.headed, l.beside = true, l.beside[1:]
	}
	for t.fold && !l.fits(easyText) && l.moveText() {
	}
	for !l.fits(easyText) && l.leaveOut(func(i int) bool { return t.columns[i].rank > 0 }) {
	}
	for !l.fits(leastText) && (l.moveText() || l.move(len(l.beside)-1)) {
	}
	slices.Sort(l.below)
	l.widths = l.share()
	return l
}

// moveText moves a column of text below the rows, where it is read as easily, and reports whether there was one.
func (l *layout) moveText() bool {
	return l.move(slices.IndexFunc(l.beside, func(i int) bool { return i > 0 && l.columns[i].text }))
}

// move moves the column at a place below the rows. The first one stays.
func (l *layout) move(at int) bool {
	if at < 1 {
		return false
	}
	l.below = append(l.below, l.beside[at])
	l.beside = slices.Delete(l.beside, at, at+1)
	return true
}

// silent reports whether a column says nothing.
func (t *table) silent(i int) bool {
	return len(t.rows) > 0 && !slices.ContainsFunc(t.rows, func(row []string) bool {
		return row[i] != "-" && row[i] != t.columns[i].usual
	})
}

// leaveOut leaves out the least important column that may go, and reports whether there was one. The first column
// always stays.
func (l *layout) leaveOut(may func(i int) bool) bool {
	least := -1
	for at, i := range l.beside {
		if i > 0 && may(i) && (least < 0 || l.columns[i].rank >= l.columns[l.beside[least]].rank) {
			least = at
		}
	}
	if least < 0 {
		return false
	}
	if i := l.beside[least]; !l.silent(i) && len(l.rows) > 0 {
		l.missing = append(l.missing, l.columns[i].name)
	}
	l.beside = slices.Delete(l.beside, least, least+1)
	return true
}

// natural returns the width of a column's longest cell.
func (l *layout) natural(i int) int { return l.widest[i] }

// least returns how narrow a column may become if text may have the given width: no word is broken for it.
func (l *layout) least(i, text int) int {
	if !l.columns[i].text {
		return l.widest[i]
	}
	return min(l.widest[i], max(text, l.longest[i]))
}

// measure measures the cells and words of all columns.
func (l *layout) measure() {
	l.widest, l.longest = make([]int, len(l.columns)), make([]int, len(l.columns))
	for i, c := range l.columns {
		l.widest[i] = ansi.StringWidth(c.name)
		l.longest[i] = l.widest[i]
		for _, row := range l.rows {
			n := ansi.StringWidth(row[i])
			l.widest[i] = max(l.widest[i], n)
			if c.text && n > l.longest[i] {
				for word := range strings.FieldsSeq(row[i]) {
					l.longest[i] = max(l.longest[i], ansi.StringWidth(word))
				}
			}
		}
	}
}

// room returns the width that columns beside each other have.
func (l *layout) room() int {
	return l.width - gap*(len(l.beside)-1) - l.margin()
}

// margin returns how far rows are indented below their heading.
func (l *layout) margin() int {
	if l.headed {
		return gap
	}
	return 0
}

// fits reports whether the columns beside each other fit if text has this width.
func (l *layout) fits(text int) bool {
	if l.width <= 0 {
		return true
	}
	total := 0
	for _, i := range l.beside {
		total += l.least(i, text)
	}
	return total <= l.room()
}

// share returns the widths of the columns: the widest text becomes narrower until all fit.
func (l *layout) share() []int {
	widths, total := make([]int, len(l.beside)), 0
	for at, i := range l.beside {
		widths[at] = l.natural(i)
		total += widths[at]
	}
	for ; l.width > 0 && total > l.room(); total-- {
		widest := -1
		for at, i := range l.beside {
			if widths[at] > l.least(i, leastText) && (widest < 0 || widths[at] >= widths[widest]) {
				widest = at
			}
		}
		if widest < 0 { // one column, with a word that is longer than the screen
			widths[0] = max(l.room(), 1)
			return widths
		}
		widths[widest]--
	}
	return widths
}

// A tableLine is a line of a table on the screen.
type tableLine struct {
	text string
	row  int // of the table; -1 for a heading
}

// head returns the header as lines.
func (l *layout) head() []string {
	header := make([]string, len(l.columns))
	for i, c := range l.columns {
		header[i] = c.name
	}
	return l.row(screen{}, header)
}

// body returns the rows as lines.
func (l *layout) body(s screen) (lines []tableLine) {
	for n, row := range l.rows {
		if l.headed && (n == 0 || l.rows[n-1][0] != row[0]) {
			for _, text := range wrapped(l.columns[0].name+" "+row[0], l.width, 0) {
				lines = append(lines, tableLine{text, -1})
			}
		}
		for _, text := range slices.Concat(l.row(s, row), l.rest(s, row)) {
			lines = append(lines, tableLine{text, n})
		}
	}
	return lines
}

// rest returns the columns that continue below a row, each with its name, as lines.
func (l *layout) rest(s screen, row []string) []string {
	var facts []string
	for _, i := range l.below {
		if row[i] == "-" || row[i] == l.columns[i].usual {
			continue
		}
		cell := row[i]
		if !strings.Contains(cell, " ") { // a colour must not reach over a line break
			cell = s.paint(l.tintOf(i, cell), cell)
		}
		facts = append(facts, l.columns[i].name+": "+cell)
	}
	if facts == nil {
		return nil
	}
	return wrapped("    "+strings.Join(facts, ", "), l.width, 6)
}

func (t *table) tintOf(i int, cell string) tint {
	if f := t.columns[i].tint; f != nil && cell != "-" {
		return f(cell)
	}
	return uncoloured
}

// row returns one row as lines: several if a text in it is wrapped.
func (l *layout) row(s screen, row []string) (lines []string) {
	cells, height := make([][]string, len(l.beside)), 0
	for at, i := range l.beside {
		cells[at] = wrapped(row[i], l.widths[at], 0)
		height = max(height, len(cells[at]))
	}
	for n := range height {
		var line strings.Builder
		margin := l.margin()
		for at, i := range l.beside {
			cell := ""
			if n < len(cells[at]) {
				cell = cells[at][n]
			}
			line.WriteString(strings.Repeat(" ", margin))
			margin = gap
			pad := strings.Repeat(" ", max(l.widths[at]-ansi.StringWidth(cell), 0))
			if l.columns[i].right {
				line.WriteString(pad + s.paint(l.tintOf(i, row[i]), cell))
			} else {
				line.WriteString(s.paint(l.tintOf(i, row[i]), cell) + pad)
			}
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

// wrapped breaks a text into lines of at most width characters, between words where it can; 0 is no limit. Lines after
// the first begin with so many spaces.
func wrapped(text string, width, indent int) []string {
	if width <= 0 || ansi.StringWidth(text) <= width {
		return []string{text}
	}
	if indent >= width/2 {
		indent = 0
	}
	var lines []string
	line, blank := "", true // blank: the line has no word yet
	flush := func() {
		lines = append(lines, line)
		line, blank = strings.Repeat(" ", indent), true
	}
	line = text[:len(text)-len(strings.TrimLeft(text, " "))]
	for word := range strings.FieldsSeq(text) {
		if !blank && ansi.StringWidth(line)+1+ansi.StringWidth(word) > width {
			flush()
		}
		if !blank {
			line += " "
		}
		for {
			free := width - ansi.StringWidth(line)
			if ansi.StringWidth(word) <= free || free < 1 {
				break
			}
			head := ansi.Truncate(word, free, "") // a word that is longer than a line
			if head == "" {
				break
			}
			line += head
			word = word[len(head):]
			flush()
		}
		line += word
		blank = false
	}
	return append(lines, line)
}
