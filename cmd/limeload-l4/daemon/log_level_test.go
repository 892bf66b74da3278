package daemon

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
)

// TestLogLevelForATime: a level that is set for a time ends by itself, unless another change comes in between; each
// change has a line and an event that say who and what.
func TestLogLevelForATime(t *testing.T) {
	before := zerolog.GlobalLevel()
	defer zerolog.SetGlobalLevel(before)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		cfg := &conf.Config{}
		cfg.Log.Level = "warn"
		d := &Daemon{log: zerolog.New(&out), cfg: cfg}
		defer d.stopLogTime()
		zerolog.SetGlobalLevel(zerolog.WarnLevel)
		events, unsubscribe := d.events.subscribe()
		defer unsubscribe()
		level := func(want string, lasts bool) {
			t.Helper()
			if l := d.LogLevel(); l.Level != want || (l.Until != nil) != lasts {
				t.Errorf("%+v, want %s", l, want)
			}
		}
		set := func(text string, lasts time.Duration) {
			t.Helper()
			if err := d.SetLogLevel(text, lasts, "alice"); err != nil {
				t.Fatal(err)
			}
		}
		set("debug", time.Minute)
		level("debug", true)
		if e := <-events; e.From != "warn" || e.To != "debug" || e.Reason != "by alice" {
			t.Errorf("%+v", e)
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		level("warn", false)
		if e := <-events; e.To != "warn" || e.Reason != "its time has passed" {
			t.Errorf("%+v", e)
		}
		set("debug", time.Minute)
		set("error", 0) // ends the time
		time.Sleep(time.Hour)
		level("error", false)
		d.fileLogLevel("reload")
		level("warn", false)
		if n := strings.Count(out.String(), "log level changed"); n != 5 || !strings.Contains(out.String(), "by alice") {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
		if d.SetLogLevel("fatal", 0, "alice") == nil || d.SetLogLevel("", 0, "alice") == nil {
			t.Error("any level is accepted")
		}
	})
}
