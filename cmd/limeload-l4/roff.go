package main

import (
	"bytes"
	"fmt"
	"strings"
)

// roffWidth is where lines of a page's source are broken: mandoc finds fault with more than 80 bytes.
const roffWidth = 76

// A roff is a manual page as it is written, in the macros of man(7). Its zero value is an empty page.
type roff struct{ text bytes.Buffer }

// title begins the page. The date is YYYY-MM-DD.
func (p *roff) title(name string, section int, date, source string) {
	fmt.Fprintf(&p.text, ".TH %s %d %s \"%s\"\n", strings.ToUpper(name), section, date, roffEscape(source))
}

func (p *roff) section(name string)    { fmt.Fprintf(&p.text, ".SH %s\n", strings.ToUpper(name)) }
func (p *roff) subsection(name string) { fmt.Fprintf(&p.text, ".SS \"%s\"\n", roffArgument(name)) }

// prose writes text: lines that begin with three blanks stand as they are, empty lines part paragraphs, and all else is
// filled. The first paragraph follows a heading.
func (p *roff) prose(text string) {
	for i, part := range paragraphs(text) {
		if i > 0 {
			p.text.WriteString(".PP\n")
		}
		if part[0] == ' ' {
			p.text.WriteString(".RS 3\n.EX\n")
			for line := range strings.SplitSeq(part, "\n") {
				p.text.WriteString(roffLine(roffEscape(strings.TrimPrefix(line, "   "))) + "\n")
			}
			p.text.WriteString(".EE\n.RE\n")
			continue
		}
		p.fill(part)
	}
}

// item writes a tagged paragraph; the tag is roff already. An empty text is allowed.
func (p *roff) item(tag, text string) {
	fmt.Fprintf(&p.text, ".TP\n%s\n", roffLine(tag))
	if text == "" {
		p.text.WriteString("\\&\n")
		return
	}
	p.fill(text)
}

// indented writes what write does a step to the right.
func (p *roff) indented(write func()) {
	p.text.WriteString(".RS\n")
	write()
	p.text.WriteString(".RE\n")
}

// fill writes words in short lines, and each sentence on lines of its own, as is good custom in roff.
func (p *roff) fill(text string) {
	line := ""
	flush := func() {
		if line != "" {
			p.text.WriteString(roffLine(line) + "\n")
		}
		line = ""
	}
	for _, word := range strings.Fields(text) {
		escaped := roffEscape(word)
		if line != "" && len(line)+1+len(escaped) > roffWidth {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += escaped
		if strings.HasSuffix(word, ".") {
			flush()
		}
	}
	flush()
}

// paragraphs parts a text at its empty lines, and where lines that stand as they are begin or end.
func paragraphs(text string) (parts []string) {
	var current []string
	flush := func() {
		if len(current) > 0 {
			parts = append(parts, strings.Join(current, "\n"))
		}
		current = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			flush()
			continue
		}
		if len(current) > 0 && strings.HasPrefix(line, "   ") != strings.HasPrefix(current[0], "   ") {
			flush()
		}
		current = append(current, line)
	}
	flush()
	return parts
}

// roffEscape is text without meaning to roff. Minus signs, quotes and the like come out as ASCII, so that they can be
// copied from the page.
func roffEscape(text string) string {
	escaped := strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace(text)
	var b strings.Builder
	for _, r := range escaped {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// roffArgument is text as a macro's argument between quotes.
func roffArgument(text string) string { return strings.ReplaceAll(roffEscape(text), `"`, `\(dq`) }

// roffLine keeps a line from being taken for a macro.
func roffLine(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

func bold(text string) string   { return `\fB` + roffEscape(text) + `\fR` }
func italic(text string) string { return `\fI` + roffEscape(text) + `\fR` }
