package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
)

// A journalWriter puts before each line of the log its priority for the journal (sd-daemon(3)). It accepts any number
// of whole lines at once, and writes once for each Write. Its zero value is of no use, see newJournalWriter. One
// goroutine at a time may use it.
type journalWriter struct {
	// set once, then read-only
	to      io.Writer
	console *zerolog.ConsoleWriter // writes into line; nil if lines stay JSON

	line bytes.Buffer // one converted line
	out  bytes.Buffer
}

// newJournalWriter makes a writer for a journal. Converted lines have neither colours nor time, since the journal has
// its own.
func newJournalWriter(to io.Writer, console bool) *journalWriter {
	w := &journalWriter{to: to}
	if console {
		w.console = &zerolog.ConsoleWriter{Out: &w.line, NoColor: true,
			PartsExclude: []string{zerolog.TimestampFieldName}}
	}
	return w
}

// Write writes lines, each a JSON object.
func (w *journalWriter) Write(lines []byte) (int, error) {
	w.out.Reset()
	for line := range bytes.Lines(lines) {
		w.out.WriteString(journalPriority(line))
		w.out.Write(w.forPeople(line))
	}
	if _, err := w.to.Write(w.out.Bytes()); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// forPeople returns a line in the console's format, if that is wanted. Its only line break is at its end.
func (w *journalWriter) forPeople(line []byte) []byte {
	if w.console == nil {
		return line
	}
	w.line.Reset()
	if _, err := w.console.Write(line); err != nil {
		return line // better unconverted than lost
	}
	text := bytes.TrimSpace(w.line.Bytes())
	return append(bytes.ReplaceAll(text, []byte("\n"), []byte(" ")), '\n')
}

// journalPriority returns the prefix of a line. A line without a level gets that of information, as the journal assumes
// without a prefix.
func journalPriority(line []byte) string {
	rest, found := bytes.CutPrefix(line, []byte(`{"`+zerolog.LevelFieldName+`":"`)) // zerolog writes the level first
	if found {
		level, _, _ := bytes.Cut(rest, []byte(`"`))
		switch string(level) {
		case zerolog.LevelTraceValue, zerolog.LevelDebugValue:
			return "<7>"
		case zerolog.LevelWarnValue:
			return "<4>"
		case zerolog.LevelErrorValue:
			return errorPriority
		case zerolog.LevelFatalValue, zerolog.LevelPanicValue:
			return "<2>"
		}
	}
	return "<6>"
}

// errorPriority is the prefix of a line about which somebody must do something.
const errorPriority = "<3>"

// toJournal reports whether w goes to the journal: then JOURNAL_STREAM has the device and inode of w (systemd.exec(5)).
// The variable alone is not enough, since w may have been redirected.
//
// The library's StderrIsJournalStream always looks at descriptor 2.
func toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	stream := os.Getenv("JOURNAL_STREAM")
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", s.Dev, s.Ino)
}

// printError writes an error for people. In the journal, each of its lines is an error.
func printError(to io.Writer, err error) {
	text := cleanLines(err.Error()) // parts of it may come from a file, a command line or a backend
	if toJournal(to) {
		text = errorPriority + strings.ReplaceAll(text, "\n", "\n"+errorPriority)
	}
	fmt.Fprintln(to, text)
}
