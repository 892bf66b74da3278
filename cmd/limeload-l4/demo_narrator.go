package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// A narrator prints what happens, one line each, from any goroutine. As the writer of the demo's log it converts lines
// about verdicts, modes and weights, and drops all others. On a terminal it keeps a table below the lines, see show.
// Its zero value is of no use, see newNarrator.
type narrator struct {
	screen screen // of a file if out is no terminal; set once, then read-only

	mu    sync.Mutex // guards the fields below
	out   io.Writer
	drawn int      // how many lines of the table are on the screen
	table []string // the lines of the table
}

func newNarrator(out io.Writer) *narrator {
	n := &narrator{out: out}
	if terminalWidth(out) > 0 && os.Getenv("TERM") != "dumb" {
		n.screen = screenOf(out)
	}
	return n
}

// live reports whether out is a terminal, on which a table can be drawn again.
func (n *narrator) live() bool { return n.screen.width > 0 }

// line prints a line with the time of day.
func (n *narrator) line(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.erase()
	text := clean(fmt.Sprintf(format, args...))
	_ = n.screen.fact(n.out, 10, time.Now().Format(time.TimeOnly), text) // nobody is left to be told about an error
	n.draw()
}

// show replaces the table below the lines.
func (n *narrator) show(table []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.erase()
	n.table = table
	n.draw()
}

// end leaves the table where it is.
func (n *narrator) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table, n.drawn = nil, 0
}

// erase removes the table from the screen.
func (n *narrator) erase() {
	if n.drawn > 0 {
		fmt.Fprintf(n.out, "\x1b[%dA\x1b[J", n.drawn) // ECMA-48: cursor up, erase to the end
	}
	n.drawn = 0
}

// draw puts the table on the screen: as many of its lines as there is room for, since a line that has scrolled out
// cannot be erased.
func (n *narrator) draw() {
	if len(n.table) == 0 {
		return
	}
	lines := n.table
	if f, is := n.out.(*os.File); is {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil && height > 1 && len(lines) > height-1 {
			lines = lines[len(lines)-height+1:]
		}
	}
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(ansi.Truncate(line, n.screen.width, "") + "\n")
	}
	_, _ = io.WriteString(n.out, b.String())
	n.drawn = len(lines)
}

// Write converts a line of the log.
func (n *narrator) Write(p []byte) (int, error) {
	var event struct{ Message, Backend, From, To, Reason string }
	if err := json.Unmarshal(p, &event); err == nil {
		switch event.Message {
		case "verdict changed":
			n.line("%s is %s: %s", event.Backend, event.To, event.Reason)
		case "mode changed", "weight changed":
			n.line("%s has %s %s instead of %s", event.Backend, strings.TrimSuffix(event.Message, " changed"), event.To,
				event.From)
		}
	}
	return len(p), nil
}
