package daemon

import (
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// ofDaemon declares the numbers of the process as a whole.
func (c *catalog) ofDaemon(d *Daemon) part {
	var (
		build = c.gauge("limeload_build_info",
			"Always 1; the labels say which version of the program runs, and which Go made it.", "goversion", "version")
		began = c.gauge("limeload_start_time_seconds", "When the daemon was started, in seconds since 1970.")
		ready = c.gauge("limeload_ready",
			"1 while new sessions are taken, as /ready says: not before the first checks, and not from the shutdown's beginning on.")
		drain = c.gauge("limeload_draining", "1 from the shutdown's beginning on, until the last session is gone.")

		sessions = c.gauge("limeload_sessions", "Sessions now, those of removed listeners included.")
		limit    = c.gauge("limeload_max_sessions",
			"Sessions there may be at once in the whole process; 0 is no limit but that of descriptors.")

		reloads = c.counter("limeload_reloads_total", "Reloads of the configuration, by their result.", "result")
		success = c.gauge("limeload_last_reload_success",
			"1 if the last reload was done, or there was none; 0 if it failed, and the configuration of before is in force.")
		reloaded = c.gauge("limeload_last_reload_timestamp_seconds",
			"When the last reload began, done or failed, in seconds since 1970; 0 if there was none.")
		took = c.gauge("limeload_last_reload_duration_seconds",
			"How long the last reload took that was done; 0 if none was.")
		warnings = c.gauge("limeload_config_warnings",
			"What is allowed in the configuration in force, and perhaps not meant, and host names in it that cannot be resolved.")
		restart = c.gauge("limeload_config_needs_restart",
			"Keys of the configuration in force whose new values only a restart will take up.")
		rules = c.gauge("limeload_access_rules",
			"Access rules that were added at run time and are in force now.")
		stateError = c.gauge("limeload_state_file_failure",
			"1 if run-time changes could not be written to the state file last, or not be read from it at the start.")
		dropped = c.counter("limeload_log_lines_dropped_total",
			"Lines that were not logged, since the log was not read fast enough.")
	)
	version, _, _ := strings.Cut(d.version, " ")
	built := []string{runtime.Version(), version}
	results := labelsFor("result", "done", "failed")
	return func(to sink) {
		to.put(build, 1, label("goversion", built[0]), label("version", built[1]))
		to.put(began, timestamp(d.began))
		to.claim(ready, d.Ready() == nil)
		to.claim(drain, d.life.current() == draining)

		d.mu.RLock()
		cfg, r := d.cfg, d.reloads
		d.mu.RUnlock()
		to.put(sessions, float64(d.server.Sessions()))
		to.put(limit, float64(cfg.Global.MaxSessions))
		to.put(reloads, float64(r.Done), results[0])
		to.put(reloads, float64(r.Failed), results[1])
		to.claim(success, r.Error == "")
		var last time.Time
		if r.Last != nil {
			last = *r.Last
		}
		to.put(reloaded, timestamp(last))
		to.put(took, r.Took)
		to.put(warnings, float64(len(warningsOf(cfg))))
		to.put(restart, float64(len(needsRestart(d.boot, cfg))))
		to.put(rules, float64(d.rules.len()))
		to.claim(stateError, d.stateError() != nil)
		var lines uint64
		if d.dropped != nil {
			lines = d.dropped()
		}
		to.put(dropped, float64(lines))
	}
}

// ofLoops declares the numbers of the loops.
func (c *catalog) ofLoops(d *Daemon) part {
	var (
		sessions = c.gauge("limeload_loop_sessions", "Sessions of the loop now.", "loop")
		turns    = c.counter("limeload_loop_turns_total", "How often the loop has woken up.", "loop")
		turn     = c.gauge("limeload_loop_turn_seconds",
			"How long the loop has been in its present turn, 0 while it waits. A loop that has been so for seconds is stuck.",
			"loop")
	)
	return func(to sink) {
		for _, l := range d.server.Loops() {
			loop := label("loop", strconv.Itoa(l.Index))
			to.put(sessions, float64(l.Sessions), loop)
			to.put(turns, float64(l.Turns), loop)
			to.put(turn, inTurn(l, time.Now()).Seconds(), loop)
		}
	}
}

// inTurn returns how long a loop has been in its current turn; 0 while it waits.
func inTurn(l l4.LoopInfo, now time.Time) time.Duration {
	if l.Waiting || l.LastTurn.IsZero() {
		return 0
	}
	return max(0, now.Sub(l.LastTurn)) // a new turn may have begun since
}

// timestamp converts a time to seconds since 1970; the zero time is 0.
func timestamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
