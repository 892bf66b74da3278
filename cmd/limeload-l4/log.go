package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// logTimeFormat is RFC 3339 with milliseconds.
const logTimeFormat = "2006-01-02T15:04:05.000Z07:00"

// newLog makes the process's log. Its lines go out from the writer's goroutine, so that none who logs is
// ever held up; the caller starts and closes that.
func newLog(o conf.Log, to io.Writer) (zerolog.Logger, *logWriter) {
	console := o.Format == "console"
	if console {
		to = zerolog.ConsoleWriter{Out: to, TimeFormat: "2006-01-02 15:04:05.000", NoColor: !terminal(to)}
	}
	w := newLogWriter(to, console)
	level, err := zerolog.ParseLevel(o.Level)
	if err != nil {
		panic("conf let an unknown log level through: " + o.Level)
	}
	return zerolog.New(w).Level(level).Hook(zerolog.HookFunc(stamp)), w
}

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

// logEvents logs a pool's changes until the subscription is closed: each verdict, and when the last eligible backend
// goes or the first comes back.
func logEvents(log zerolog.Logger, p *pool.Pool, sub *pool.Subscription) {
	var lost uint64
	served := false
	for e := range sub.C() {
		if n := sub.Dropped(); n > lost {
			log.Warn().Uint64("events", n-lost).Msg("pool events lost")
			lost = n
		}
		v, ok := e.(pool.VerdictChanged)
		if !ok {
			continue
		}
		line := log.Info()
		if v.To != pool.Healthy {
			line = log.Warn()
		}
		line.Str("pool", v.Pool).Str("backend", v.Backend.ID).Stringer("backend_address", v.Backend.Addr).
			Stringer("from", v.From).Stringer("to", v.To).Str("reason", v.Reason).Msg("verdict changed")
		switch eligible := p.Eligible(); {
		case eligible == 0 && v.From == pool.Healthy:
			served = false
			log.Error().Str("pool", p.Name()).Msg("no backend is eligible: clients are refused")
		case eligible > 0 && !served:
			served = true
			log.Info().Str("pool", p.Name()).Int("eligible", eligible).Msg("pool can serve")
		}
	}
}
