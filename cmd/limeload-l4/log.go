package main

import (
	"io"
	"log"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/grpclog"

	"github.com/limeload/limeload-l4/conf"
)

// logTimeFormat is RFC 3339 with milliseconds.
const logTimeFormat = "2006-01-02T15:04:05.000Z07:00"

// newLog makes the log of the process. The writer's goroutine, which the caller starts and closes, writes the lines, so
// that logging never blocks. The daemon decides which levels are logged. In the journal, each line has its priority.
//
// It also silences the loggers of libraries.
func newLog(o conf.Log, to io.Writer) (zerolog.Logger, *logWriter) {
	silenceLibraries()
	console, perLine := o.Format == "console", false
	out := io.Writer(&printableWriter{to: to})
	switch {
	case toJournal(to):
		out = newJournalWriter(out, console)
	case console:
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: "2006-01-02 15:04:05.000", NoColor: !terminal(to)}
		perLine = true
	}
	w := newLogWriter(out, perLine)
	return zerolog.New(w).Hook(zerolog.HookFunc(stamp)), w
}

// silenceLibraries silences the loggers of the standard library and of grpc, once. Both log oddities of a backend under
// check, as often as the backend likes.
var silenceLibraries = sync.OnceFunc(func() {
	log.SetOutput(io.Discard)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
})

// terminal reports whether w is a terminal. In a file, colours would be noise.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// stamp adds the time to a line.
func stamp(e *zerolog.Event, _ zerolog.Level, _ string) {
	var text [len(logTimeFormat) + 8]byte
	e.Bytes(zerolog.TimestampFieldName, time.Now().AppendFormat(text[:0], logTimeFormat))
}
