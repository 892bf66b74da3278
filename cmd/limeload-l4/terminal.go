package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
)

// terminalWidth returns the number of columns of the terminal that w writes to, and 0 if w is not a terminal.
func terminalWidth(w io.Writer) int {
	file, is := w.(*os.File)
	if !is {
		return 0
	}
	columns, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// A screen is what a command's output for people is fitted to. The zero value is a file: lines of any length, and no
// colours.
type screen struct {
	width   int // of its lines; 0: no limit
	colours bool
}

// leastWidth is the least width that output is fitted to; nothing can be read in a narrower terminal.
const leastWidth = 20

// screenOf returns the screen that w is. As with ps and systemctl, lines in a pipe or file have any length, unless the
// environment has COLUMNS, as watch(1) sets it.
func screenOf(w io.Writer) screen {
	s := screen{width: terminalWidth(w)}
	s.colours = s.width > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if s.width == 0 {
		if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
			s.width = n
		}
	}
	if s.width > 0 {
		s.width = max(s.width, leastWidth)
	}
	return s
}

// colours returns the values of --color.
func colours() []string { return []string{"auto", "always", "never"} }

// with returns the screen as the flags --wide and --color have it.
func (s screen) with(wide bool, colour string) (screen, error) {
	if wide {
		s.width = 0
	}
	switch colour {
	case "auto":
	case "always":
		s.colours = true
	case "never":
		s.colours = false
	default:
		return s, &usageError{fmt.Errorf("--color %q: needs auto, always or never", colour)}
	}
	return s, nil
}

// A tint is a colour by its meaning. Words always say the same, so nothing is lost without colours.
type tint int

const (
	uncoloured tint = iota
	good
	doubtful
	bad
	faint
)

// paint colours a text.
func (s screen) paint(t tint, text string) string {
	if !s.colours || t == uncoloured || text == "" {
		return text
	}
	// ECMA-48, 8.3.117: green, yellow, red, faint. The terminal's own palette keeps them readable on light and dark.
	codes := map[tint]string{good: "32", doubtful: "33", bad: "31", faint: "2"}
	return "\x1b[" + codes[t] + "m" + text + "\x1b[0m"
}

// write writes a text of several lines, wrapped to the screen. Lines after a wrap begin with so many spaces.
func (s screen) write(w io.Writer, indent int, text string) error {
	for _, line := range wrapped(text, s.width, indent) {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// fact writes a text beside its name; the text begins at the column at.
func (s screen) fact(w io.Writer, at int, name, text string) error {
	for _, line := range wrapped(text, max(s.width-at, 0), 0) {
		if _, err := fmt.Fprintf(w, "%-*s%s\n", at, name, line); err != nil {
			return err
		}
		name = ""
	}
	return nil
}

// stateTint returns the tint of a verdict, mode, breaker or another state of a fixed set.
func stateTint(word string) tint {
	switch word {
	case "healthy", "allowed", "allow", "serving", "yes":
		return good
	case "unhealthy", "open", "denied", "deny", "breaker_open":
		return bad
	case "unknown", "wrong_role", "lagging", "fallback", "half-open", "breaker_half_open", "drain", "draining",
		"maintenance", "starting", "handing_over", "no", "agent", "weight_0", "full", "over_rate":
		return doubtful
	}
	return uncoloured
}

// always returns a column's tint that does not depend on the cell.
func always(t tint) func(string) tint { return func(string) tint { return t } }
