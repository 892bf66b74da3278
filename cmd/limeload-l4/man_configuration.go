package main

import (
	"regexp"
	"strings"
)

const (
	pageColumns = 71 // man uses 78 of a terminal's 80 columns, and indents the text by 7
	leastNote   = 30 // the least width of a comment beside its key; a narrower one goes above the key
)

// configurationPage returns lb.toml(5): the reference configuration, with comments wrapped that are too wide for the
// page. The comment at its beginning is the description.
func configurationPage(reference []byte, date string) []byte {
	intro, file, _ := strings.Cut(string(reference), "\n\n")
	p := new(strings.Builder)
	p.WriteString("# LB.TOML 5 " + date + " limeload-l4\n\n")
	p.WriteString("## NAME\n\nlb.toml - configuration of limeload-l4\n\n## DESCRIPTION\n\n")
	for line := range strings.Lines(intro) {
		p.WriteString(plain(strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")))
	}
	p.WriteString(`

The second word of [listener.NAME] and [pool.NAME] is a name of your choice; redis, postgres and so on are only
examples.
"limeload-l4 example all" prints what follows as a file, "limeload-l4 check" reports each mistake in one, and
"limeload-l4 plan" prints what it would change.

## PROCESS

`)
	file = regexp.MustCompile(`\n {10,}# `).ReplaceAllString(file, " ") // a comment that continues on the next line
	rule := regexp.MustCompile(`(?m)^# -+ (.*)\n`)                      // the title of a part of the file
	for at := rule.FindStringSubmatchIndex(file); at != nil; at = rule.FindStringSubmatchIndex(file) {
		p.WriteString("```\n" + narrow(file[:at[0]]) + "```\n\n## " + strings.ToUpper(file[at[2]:at[3]]) + "\n\n")
		file = file[at[1]:]
	}
	p.WriteString("```\n" + narrow(file) + "```\n\n## SEE ALSO\n\n**limeload-l4**(8)\n")
	return manPage(p.String())
}

// narrow wraps the comments of lines that are too wide for the page, in their own column or, if that is too narrow,
// above the line.
func narrow(toml string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.Trim(toml, "\n") + "\n") {
		code, comment, at := splitComment(strings.TrimSuffix(line, "\n"))
		switch {
		case comment == "" || len(line) <= pageColumns+1:
			b.WriteString(line)
		case at <= pageColumns-leastNote:
			b.WriteString(line[:at] + strings.TrimLeft(wrapComment(comment, at), " "))
		default:
			indent := len(line) - len(strings.TrimLeft(line, " "))
			b.WriteString(wrapComment(comment, indent) + strings.Repeat(" ", indent) + code + "\n")
		}
	}
	return b.String()
}

// wrapComment returns a comment as lines that begin in column at.
func wrapComment(comment string, at int) string {
	begin := strings.Repeat(" ", at) + "#"
	var b strings.Builder
	line := begin
	for _, word := range strings.Fields(comment) {
		if len(line)+1+len(word) > pageColumns && line != begin {
			b.WriteString(line + "\n")
			line = begin
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// splitComment splits a line of TOML into code and comment, and returns the column where the comment begins.
func splitComment(line string) (code, comment string, at int) {
	var quote rune
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '#':
			return strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:]), i
		}
	}
	return strings.TrimSpace(line), "", 0
}
