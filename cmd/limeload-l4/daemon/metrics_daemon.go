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
			"The labels say which version of the program runs, and which Go made it; the value is always 1.",
			"goversion", "version")
		began = c.gauge("limeload_start_time_seconds",
			"The daemon was started at this time, in seconds since 1970.")
		ready = c.gauge("limeload_ready",
			"The daemon takes new sessions (1), as /ready says, or does not (0): not before the first checks, and not from the shutdown's beginning on.")
		drain = c.gauge("limeload_draining",
			"The daemon is shutting down (1) until its last session is gone.")

		sessions = c.gauge("limeload_sessions",
			"The daemon has so many sessions now, those of removed listeners included.")
		limit = c.gauge("limeload_max_sessions",
			"The whole process may have so many sessions at once; 0 is no limit but that of descriptors.")

		reloads = c.counter("limeload_reloads_total",
			"The configuration was reloaded so often, by the result.", "result")
		success = c.gauge("limeload_last_reload_success",
			"The last reload succeeded, or there was none (1); or it failed, and the configuration of before is in force (0).")
		reloaded = c.gauge("limeload_last_reload_timestamp_seconds",
			"The last reload began at this time, in seconds since 1970, whether it succeeded or not; 0 if there was none.")
		took = c.gauge("limeload_last_reload_duration_seconds",
			"The last successful reload took so long; 0 if there was none.")
		warnings = c.gauge("limeload_config_warnings",
			"The configuration in force has so many settings that are allowed but perhaps not meant, and host names that cannot be resolved.")
		restart = c.gauge("limeload_config_needs_restart",
			"The configuration in force has so many keys whose new values only a restart will take up.")
		rules = c.gauge("limeload_access_rules",
			"So many access rules that were added at run time are in force now.")
		stateError = c.gauge("limeload_state_file_failure",
			"The state file could not be written the last time, or not be read at the start (1).")
		dropped = c.counter("limeload_log_lines_dropped_total",
			"The log was not read fast enough for so many lines, which were dropped.")
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
		sessions = c.gauge("limeload_loop_sessions",
			"The loop has so many sessions now.", "loop")
		turns = c.counter("limeload_loop_turns_total",
			"The loop has woken up so often.", "loop")
		turn = c.gauge("limeload_loop_turn_seconds",
			"The loop has been in its present turn for so long; 0 while it waits. A loop in a turn of seconds is stuck.",
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
