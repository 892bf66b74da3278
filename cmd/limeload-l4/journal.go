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

// A journalWriter puts before each line of the log the priority by which the journal files it (sd-daemon(3)). It takes any number
// of whole lines at once, and writes as often as it is written to. Its zero value is of no use, see newJournalWriter. It is
// written to by one goroutine at a time.
type journalWriter struct {
	// set once, then read-only
	to      io.Writer
	console *zerolog.ConsoleWriter // writes into line; nil: lines stay JSON

	line bytes.Buffer // one line for people
	out  bytes.Buffer
}

// newJournalWriter makes a writer for a journal. Lines for people have neither colours nor time: the journal has its own of both.
func newJournalWriter(to io.Writer, console bool) *journalWriter {
	w := &journalWriter{to: to}
	if console {
		w.console = &zerolog.ConsoleWriter{Out: &w.line, NoColor: true, PartsExclude: []string{zerolog.TimestampFieldName}}
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

// forPeople is a line as the console has it, if it should be so. It ends with the one line break in it.
func (w *journalWriter) forPeople(line []byte) []byte {
	if w.console == nil {
		return line
	}
	w.line.Reset()
	if _, err := w.console.Write(line); err != nil {
		return line // better as it is than not at all
	}
	text := bytes.TrimSpace(w.line.Bytes())
	return append(bytes.ReplaceAll(text, []byte("\n"), []byte(" ")), '\n')
}

// journalPriority is the prefix of a line. A line without a level is for information, as it would be without a prefix.
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

// errorPriority is the prefix of a line that someone must act upon.
const errorPriority = "<3>"

// toJournal tells whether what is written to w goes into the journal: JOURNAL_STREAM then names its device and inode
// (systemd.exec(5)). The variable alone says nothing, since w may have been redirected.
//
// The library's StderrIsJournalStream looks at descriptor 2 alone, whatever w is.
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

// printError writes an error for a person to read; in the journal each of its lines is filed as an error.
func printError(to io.Writer, err error) {
	text := cleanLines(err.Error()) // what a file, a command line or a backend has put into it must not speak to the terminal
	if toJournal(to) {
		text = errorPriority + strings.ReplaceAll(text, "\n", "\n"+errorPriority)
	}
	fmt.Fprintln(to, text)
}
