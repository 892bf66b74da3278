package daemon

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// A logTime is how long a level of the log lasts that was set at run time. Its zero value is no such level. It is safe
// for concurrent use.
type logTime struct {
	mu sync.Mutex
	// mu guards the fields below, and the level itself against two changes at once
	until time.Time // zero if it lasts until the next change or reload
	timer *time.Timer
}

// LogLevel returns the lowest level that is logged, and until when.
func (d *Daemon) LogLevel() admin.LogLevel {
	d.logTime.mu.Lock()
	defer d.logTime.mu.Unlock()
	l := admin.LogLevel{Level: zerolog.GlobalLevel().String()}
	if !d.logTime.until.IsZero() {
		until := d.logTime.until
		l.Until = &until
	}
	return l
}

// SetLogLevel sets the lowest level that is logged, for that time or, with 0, until the next call or reload.
func (d *Daemon) SetLogLevel(text string, lasts time.Duration, by string) error {
	level, err := zerolog.ParseLevel(text)
	if err != nil || text == "" || level < zerolog.TraceLevel || level > zerolog.ErrorLevel {
		return &admin.RequestError{Field: "level", Value: text, Want: `"trace", "debug", "info", "warn" or "error"`}
	}
	end, err := d.beginChange()
	if err != nil {
		return err
	}
	defer end()
	d.changeLogLevel(level, lasts, "by "+by)
	return nil
}

// continueLogLevel puts a level in force that the old process had at run time.
func (d *Daemon) continueLogLevel(of admin.LogLevel) {
	level, err := zerolog.ParseLevel(of.Level)
	if err != nil || of.Level == "" {
		return
	}
	lasts := time.Duration(0)
	if of.Until != nil {
		lasts = max(time.Until(*of.Until), time.Millisecond)
	}
	d.changeLogLevel(level, lasts, "upgrade")
}

// fileLogLevel puts the level of the configuration in force again.
func (d *Daemon) fileLogLevel(reason string) { d.changeLogLevel(d.levelOfFile(), 0, reason) }

// levelOfFile returns the level of the configuration.
func (d *Daemon) levelOfFile() zerolog.Level {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return logLevel(d.cfg)
}

// changeLogLevel sets the level, logs that and publishes the event.
func (d *Daemon) changeLogLevel(level zerolog.Level, lasts time.Duration, reason string) {
	d.logTime.mu.Lock()
	defer d.logTime.mu.Unlock()
	d.changeLogLevelLocked(level, lasts, reason)
}

func (d *Daemon) changeLogLevelLocked(level zerolog.Level, lasts time.Duration, reason string) {
	if d.logTime.timer != nil {
		d.logTime.timer.Stop()
	}
	d.logTime.until, d.logTime.timer = time.Time{}, nil
	from := zerolog.GlobalLevel()
	if from == level && lasts == 0 {
		return
	}
	// Log has no level of its own, so that the line is there whatever the levels are.
	line := d.log.Log().Str(zerolog.LevelFieldName, zerolog.InfoLevel.String()).Str("event", "log_level_changed").
		Str("from", from.String()).Str("to", level.String()).Str("reason", reason)
	if lasts > 0 {
		until := time.Now().Add(lasts)
		line.Time("until", until)
		d.logTime.until = until
		d.logTime.timer = time.AfterFunc(lasts, func() { d.endLogLevel(until) })
	}
	line.Msg("log level changed")
	zerolog.SetGlobalLevel(level)
	d.events.publish(admin.Event{At: time.Now(), Kind: "log_level_changed", From: from.String(), To: level.String(),
		Reason: reason})
}

// endLogLevel puts the level of the configuration in force again, unless another change has come in between.
func (d *Daemon) endLogLevel(until time.Time) {
	level := d.levelOfFile() // before mu, since nobody who has mu may wait for d.mu
	d.logTime.mu.Lock()
	defer d.logTime.mu.Unlock()
	if d.logTime.until.Equal(until) {
		d.changeLogLevelLocked(level, 0, "its time has passed")
	}
}

// stopLogTime ends the timer.
func (d *Daemon) stopLogTime() {
	d.logTime.mu.Lock()
	defer d.logTime.mu.Unlock()
	if d.logTime.timer != nil {
		d.logTime.timer.Stop()
	}
}
