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

// newLog makes the process's log. Its lines go out from the writer's goroutine, so that none who logs is
// ever held up; the caller starts and closes that. Which lines there are is the daemon's to say. In the journal each line has its priority.
//
// It silences the loggers of libraries.
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

// silenceLibraries silences the loggers of the standard library and of grpc, once. Both write a line for what they find
// odd about a backend under check, as often as the backend likes.
var silenceLibraries = sync.OnceFunc(func() {
	log.SetOutput(io.Discard)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
})

// terminal tells whether a person may be looking: colours in a file are noise.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// stamp gives a line its time.
func stamp(e *zerolog.Event, _ zerolog.Level, _ string) {
	var text [len(logTimeFormat) + 8]byte
	e.Bytes(zerolog.TimestampFieldName, time.Now().AppendFormat(text[:0], logTimeFormat))
}
