package daemon

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/healthcheck"
)

// logBlindness logs which backends keep their verdicts because their checks find nothing out. It writes one line for
// each pool, since whatever this machine lacks, it lacks for all backends.
func (d *Daemon) logBlindness(all []healthcheck.Blindness) {
	type lines struct {
		pool string
		over bool
	}
	first := make(map[lines]healthcheck.Blindness)
	count := make(map[lines]int)
	for _, b := range all {
		of := lines{b.Target.Group, b.Over}
		if count[of]++; count[of] == 1 {
			first[of] = b
		}
	}
	for of, n := range count {
		b := first[of]
		level, event, message := zerolog.WarnLevel, "checks_blind", "checks find nothing out: the verdicts of before stay"
		if of.over {
			level, event, message = zerolog.InfoLevel, "checks_not_blind", "checks find something out again"
		}
		d.log.WithLevel(level).Str("pool", of.pool).Str("backend", b.Target.Name).Int("backends", n).
			Str("reason", b.Reason).
			Float64("duration", time.Since(b.Since).Seconds()).
			Str("event", event).Msg(message)
	}
}
